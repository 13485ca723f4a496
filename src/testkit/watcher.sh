# Cleans up a local cluster when the process that started this script ends.
#
# Reads two lines: a parent directory, and a directory. Creates a new directory in the parent, unless the second line
# names an existing one, and prints its path. Then waits until standard input is closed, which happens when the other
# process ends for any reason. Finally kills every process that works in the directory, frees its shared memory, and
# removes the directory.
trap '' HUP INT PIPE QUIT TERM
IFS= read -r parent && IFS= read -r root || exit 1
[ -n "$root" ] || root=$(mktemp -d "$parent/podpool-testkit-XXXXXXXX") || exit 1
cd "$root" && root=$(pwd -P) && cd / || exit 1
export root
echo "$root"
exec >/dev/null
while IFS= read -r _; do :; done

processes() {
    if [ -e /proc/self/cwd ]; then
        ls -l /proc/[0-9]*/cwd | while IFS= read -r line; do
            case $line in
            *"/cwd -> $root" | *"/cwd -> $root/"* | *"/cwd -> $root (deleted)")
                line=${line#*/proc/}
                echo "${line%%/*}"
                ;;
            esac
        done
    else
        ps -axo pid=,ppid=,command= | awk '
            { pid[NR] = $1; parent[NR] = $2; if (index($0, ENVIRON["root"])) hit[$1] = 1 }
            END {
                do {
                    more = 0
                    for (i = 1; i <= NR; i++)
                        if (!(pid[i] in hit) && (parent[i] in hit)) { hit[pid[i]] = 1; more = 1 }
                } while (more)
                for (p in hit) print p
            }'
    fi
}

tries=0
segments=
while [ "$tries" -lt 200 ]; do
    tries=$((tries + 1))
    found=$(processes)
    if [ -n "$found" ]; then
        for pid in $found; do
            # Shared memory of a server that initdb starts. initdb chooses its type, which may be files in /dev/shm.
            segments="$segments $(sed -n 's|.* \(/dev/shm/PostgreSQL\.[0-9]*\)$|\1|p' "/proc/$pid/maps")"
        done
        # shellcheck disable=SC2086 # splits into one word for each process
        kill -9 $found
        sleep 0.02 || sleep 1
        continue
    fi
    # A killed server leaves its System V segment behind. The segment's id is in the seventh line of the pid file.
    for pidfile in "$root"/*/data/postmaster.pid; do
        [ -r "$pidfile" ] || continue
        segment=$(sed -n '7s/^ *[0-9][0-9]* *\([0-9][0-9]*\) *$/\1/p' "$pidfile")
        [ -z "$segment" ] || ipcrm -m "$segment"
    done
    # shellcheck disable=SC2086 # splits into one word for each segment
    rm -rf "$root" $segments
    if [ ! -e "$root" ] && [ -z "$(processes)" ]; then
        exit 0
    fi
done
exit 1
