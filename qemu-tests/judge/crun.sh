#!/bin/bash
# In front of the runtime for crun's suite: --cgroup-manager is --systemd-cgroup elsewhere, and --config names a file that the bundle
# has as config.json elsewhere.
global=() words=() config=config.json
while [[ ${1:-} == -* ]]; do
	case $1 in
	--cgroup-manager)
		[[ $2 == systemd ]] && global+=(--systemd-cgroup)
		shift
		;;
	--cgroup-manager=systemd) global+=(--systemd-cgroup) ;;
	--cgroup-manager=*) ;;
	--root | --log | --log-format)
		global+=("$1" "$2")
		shift
		;;
	*) global+=("$1") ;;
	esac
	shift
done
verb=${1:-}
(($#)) && shift
if [[ $verb == run || $verb == create ]]; then
	while (($#)); do
		case $1 in
		--config)
			config=$2
			shift
			;;
		--config=*) config=${1#*=} ;;
		*) words+=("$1") ;;
		esac
		shift
	done
	set -- "${words[@]}"
	[[ $config == config.json ]] || cp "$config" config.json
fi
exec "$JUDGE_RUNTIME" "${global[@]}" ${verb:+"$verb"} "$@"
