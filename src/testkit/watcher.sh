# Waits at the end of a pipe until the program that started the servers is gone, however it went; then ends every
# process that works below the directory named in the first line, frees its shared memory, and removes it.
trap '' HUP INT QUIT TERM
cd /
IFS= read -r root || exit 0
cat >/dev/null
export root

processes() {
    if [ -e /proc/self/cwd ]; then
        ls -l /proc/[0-9]*/cwd 2>/dev/null | while IFS= read -r line; do
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
while [ "$tries" -lt 200 ]; do
    tries=$((tries + 1))
    found=$(processes)
    if [ -n "$found" ]; then
        # shellcheck disable=SC2086 # one word for each process
        kill -9 $found 2>/dev/null
        sleep 0.02 2>/dev/null || sleep 1
        continue
    fi
    # A server that was killed leaves its System V segment; its identifier is in the seventh line.
    for pidfile in "$root"/*/data/postmaster.pid; do
        [ -r "$pidfile" ] || continue
        segment=$(sed -n '7s/^ *[0-9][0-9]* *\([0-9][0-9]*\) *$/\1/p' "$pidfile")
        [ -n "$segment" ] && ipcrm -m "$segment" 2>/dev/null
    done
    rm -rf "$root" 2>/dev/null
    if [ ! -e "$root" ] && [ -z "$(processes)" ]; then
        exit 0
    fi
done
exit 1
