package tuf

import (
	"fmt"
	"strings"
)

const (
	planRole   = "plan"
	planPrefix = "plan/"
)

// visit is a role to be asked, and who says what its keys are.
type visit struct {
	role string
	by   delegator
}

// find returns what the most trusted role that knows a name says about it (5.6.7): the offline role first, then those it
// delegates the name to, in order and depth first, each once.
func (c *Client) find(name string) (*targetFile, error) {
	if err := c.Refresh(); err != nil {
		return nil, err
	}
	visits := []visit{{roleTargets, byRoot(c.root)}}
	visited := map[string]bool{}
	for len(visits) > 0 && len(visited) <= maxDelegations {
		v := visits[len(visits)-1]
		visits = visits[:len(visits)-1]
		if visited[v.role] {
			continue
		}
		visited[v.role] = true
		m, err := c.load(v.role, v.by)
		if err != nil {
			return nil, err
		}
		if t, ok := m.Signed.Targets[name]; ok {
			return t, nil
		}
		next, last := c.delegated(v.role, m, name)
		if last {
			visits = nil
		}
		for i := len(next) - 1; i >= 0; i-- {
			visits = append(visits, next[i])
		}
	}
	next := "stage, sign and publish it, or name another in the plan (release status lists what there is)"
	if strings.HasPrefix(name, planPrefix) {
		next = "correct the channel in the configuration, or make its plan (release plan)"
	}
	return nil, &Refusal{Reason: Unsigned, File: name, Detail: fmt.Sprintf("no role that may sign it has: version %d of targets.json knows %d names, this is none of them: %s",
		c.targets[roleTargets].Signed.Version, len(c.targets[roleTargets].Signed.Targets), next)}
}

// delegated lists whom a role delegates a name to, up to and with the first that ends the search.
func (c *Client) delegated(role string, m *signedFile[targetsContent], name string) (list []visit, last bool) {
	if m.Signed.Delegations == nil {
		return nil, false
	}
	for _, r := range m.Signed.Delegations.Roles {
		if !r.matches(name) || !c.mayDelegate(role, r.Name, name) {
			continue
		}
		list = append(list, visit{r.Name, byTargets(m)})
		if r.Terminating {
			return list, true
		}
	}
	return list, false
}

// mayDelegate holds the policy of Proa's repositories, whatever metadata says: the offline role delegates plan/* to the role plan, and
// nobody delegates anything else. A delegated role with the name of a top-level one would take its file in the store.
func (c *Client) mayDelegate(from, to, name string) bool {
	switch to {
	case roleRoot, roleTimestamp, roleSnapshot, roleTargets, "":
		return false
	}
	return c.cfg.Plain || from == roleTargets && to == planRole && strings.HasPrefix(name, planPrefix)
}
