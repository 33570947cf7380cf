package slot

// Counts are the tries left by file name, as GRUB keeps them: it cannot give a counted boot program another name. A name that is not
// there counts for itself, and a name without a counter is good whatever stands here. Nil counts nothing.
type Counts map[string]int

// Seen parses a file name and takes what was counted from its tries. The result is as if the loader had renamed the file.
func (c Counts) Seen(file string) (Name, error) {
	n, err := Parse(file)
	if err != nil || !n.Counted {
		return n, err
	}
	if left, ok := c[file]; ok && left >= 0 && left < n.Left {
		n.Done = min(n.Done+n.Left-left, maxCount)
		n.Left = left
	}
	return n, nil
}

// ChooseBIOS is Choose for GRUB: next keeps its name, and after is what is counted once it is running. What was counted of files that
// are gone is not kept.
func ChooseBIOS(files []string, counts Counts) (next string, after Counts, ok bool) {
	var seen []string
	real := map[string]string{}
	for _, f := range files {
		if n, err := counts.Seen(f); err == nil {
			seen = append(seen, n.String())
			real[n.String()] = f
		}
	}
	first, renamed, ok := Choose(seen)
	if !ok || renamed == first {
		return real[first], counts, ok
	}
	next = real[first]
	n, _ := Parse(renamed)
	after = Counts{next: n.Left}
	for _, f := range files {
		if left, ok := counts[f]; ok && f != next {
			after[f] = left
		}
	}
	return next, after, true
}
