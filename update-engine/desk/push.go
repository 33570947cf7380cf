package desk

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/repo"
)

func (s Streams) pushCommand() command.Command {
	return command.Command{
		Name: "push", Args: "oci://REGISTRY/NAME:TAG", Min: 1, Max: 1, Short: "copy the repository to a container registry", Setup: s.setup(setupPush),
		Long: `Copies what is published to a container registry, from which machines then update: the same address is the server, or a mirror, in their
configuration. The registry is not trusted more than a web server is. All files are one artifact under one tag, each a layer with its name, as ORAS
has it; "oras pull" makes the folder again. What the registry has is not sent again, and the tag is moved last: a push that fails changes nothing for
machines. Push after each publish and plan; release refresh --push does it each time the timestamp is renewed.

Name and password are those of docker login or podman login. Machines have none: what they read must be public. oci+http:// is a registry
without TLS; name and password go there in clear.`,
		Examples: []string{"release push --repo repo oci://registry.example.org/os/updates:latest", "release verify --repo oci://registry.example.org/os/updates:latest --root 1.root.json"},
	}
}

func setupPush(c *common, flags *flag.FlagSet) action {
	c.repoFlag(flags)
	c.dryFlag(flags)
	return func(ctx context.Context, args []string) (*result, error) {
		done, err := c.push(ctx, args[0])
		if err != nil {
			return nil, err
		}
		return &result{json: done, text: c.pushedText(done) + c.written(done.Files)}, nil
	}
}

// push copies the repository to an address.
func (c *common) push(ctx context.Context, address string) (*repo.Pushed, error) {
	to, err := pushAddress(address)
	if err != nil {
		return nil, err
	}
	web := client.NewHTTP(time.Minute)
	defer web.Close()
	return c.desk().Push(ctx, to, web.Registry(to))
}

// pushAddress reads an address, before anything is done.
func pushAddress(address string) (artifact.Address, error) {
	to, err := artifact.Parse(address)
	if err == nil && to.File != "" {
		err = fmt.Errorf("%q: want oci://REGISTRY/NAME:TAG, with nothing behind the tag", address)
	}
	if err != nil {
		return to, command.Wrong("push: %w", err)
	}
	return to, nil
}

func (c *common) pushedText(done *repo.Pushed) string {
	would := "pushed"
	if c.dry {
		would = "would push"
	}
	return fmt.Sprintf("%s %d files, %d bytes, to %s, which is %s", would, len(done.Files), done.Size, done.Address, done.Digest)
}
