// Package reproduce builds a release twice, under circumstances as different as one machine has them, and compares every artifact: what
// `make reproducible` does.
//
// Both builds are made by the builder compiled from their own copy of the checkout, without the cache of stages.
//
//	                   first                     second
//	checkout           a copy, files of today    a copy elsewhere, under a longer path with a space, files of years ago
//	user               the caller                if that is root: an unprivileged one
//	umask, time zone   022, UTC                  077, Pacific/Auckland
//	locale, HOME       the caller's              tr_TR.UTF-8, a new one
//	Go's build cache   the caller's              empty: everything is compiled anew
//	packages           the cache's               the same files in a cache of its own: tools tree, kernel and archives are unpacked anew
//
// With Options.First the first build is one that the caller has made already, in its own checkout and with the cache of stages: then the
// second one also says that nothing stale was in that cache.
//
// Compare names the first difference: the file, the byte, and what the byte belongs to.
package reproduce
