// Package archtest holds the rules of the repository's structure, each with its reason, as plain tests.
package archtest
