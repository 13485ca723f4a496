#!/bin/bash
# Runs the StatefulSet's Pods on this machine, with the script and the command line from the manifests. Namespaces give
# each Pod the same paths and DNS names as in Kubernetes.
#
# replication.rs runs this script in `unshare --mount --net --pid`, with the directory $WORK:
#   config/ secrets/   the ConfigMap and the Secret, one file per key
#   tls/ tls.new/      the Secret with the certificate before and after its renewal
#   environment        the variables of the containers, as `export` lines that use $POD_NAME
#   command            the command line of the server, with one word per line
set -euo pipefail
export PATH=$BIN:$PATH

pods=3
user=postgres
: >"$WORK/hosts"

fail() { echo "FAILED: $*"; exit 1; }
address() { echo "127.0.0.$((2 + $1))"; }
log() { echo "$WORK/log$1"; }

# Writes the hosts file of the Pods, which replaces DNS: every Pod has its own name, and every ready Pod also has the
# name of the Service.
declare -A ready=()
resolve() {
    {
        echo '127.0.0.1 localhost'
        for ((pod = 0; pod < pods; pod++)); do
            echo "$(address $pod) postgresql-sfs-$pod.$SERVICE ${ready[$pod]:+$SERVICE}"
        done
    } >"$WORK/hosts"
}

# Runs a command in a Pod, as an unprivileged user, with the container's paths and environment variables.
in_pod() { # in_pod POD COMMAND…
    POD=$1 unshare --mount bash -euc '
        mount --bind "$WORK/hosts" /etc/hosts
        mount --bind "$WORK/host.conf" /etc/host.conf
        mount --bind "$WORK/config" /etc/postgresql
        mount -t tmpfs tmpfs /var/lib/postgresql
        mkdir /var/lib/postgresql/data
        mount --bind "$WORK/volume$POD" /var/lib/postgresql/data
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir -p /run/secrets/postgresql "$TLS" /run/postgresql
        mount --bind "$WORK/socket$POD" /run/postgresql
        mount --bind "$WORK/secrets" /run/secrets/postgresql
        mount --bind "$WORK/tls" "$TLS"
        POD_NAME=postgresql-sfs-$POD
        . "$WORK/environment"
        shift
        cd /
        if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; fi
        exec "$@"' - "$@"
}

prepare() { in_pod "$1" bash /etc/postgresql/prepare.sh 2>>"$(log "$1")"; }

# Starts a Pod's server and waits until it is ready. All Pods share one network here, so each server gets its own
# address to listen on, and fsync is off to save time. The other arguments are from the manifest.
declare -A running=()
serve() { # serve POD
    local words
    mapfile -t words < <(sed "s/\$(POD_NAME)/postgresql-sfs-$1/" "$WORK/command")
    in_pod "$1" "${words[@]}" -c listen_addresses="$(address "$1")" -c fsync=off >>"$(log "$1")" 2>&1 &
    running[$1]=$!
    for ((tries = 0; tries < 300; tries++)); do
        if pg_isready --quiet --host="$(address "$1")"; then
            ready[$1]=yes
            resolve
            return
        fi
        kill -0 "${running[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$(log "$1")"
    fail "Pod $1 does not become ready"
}

start() { prepare "$1" || { tail -n 20 "$(log "$1")"; fail "prepare.sh of Pod $1 failed"; }; serve "$1"; }

stop() { # stop POD SIGNAL
    unset "ready[$1]"
    resolve
    kill -"$2" "$(head -n 1 "$WORK/volume$1/pgdata/postmaster.pid")"
    wait "${running[$1]}" || true
}

# Prints a connection string for a Pod, as the application's user and with the verification of the Service's name. A
# later parameter replaces an earlier one.
conninfo() { # conninfo POD PARAMETER…
    local pod=$1
    shift
    echo "host=$SERVICE hostaddr=$(address "$pod") user=$APP_USER dbname=$APP_DATABASE connect_timeout=5" \
        "sslmode=verify-full sslrootcert=$WORK/tls/ca.crt $*"
}

sql() { # sql POD STATEMENT: execute it as the application's user
    PGPASSWORD=$(cat "$WORK/secrets/app-password") psql -qAtX --dbname="$(conninfo "$1")" --set=ON_ERROR_STOP=1 \
        --command="$2"
}

super() { # super POD STATEMENT: execute it as the superuser, who can only use the socket
    in_pod "$1" psql -qAtX --host=/run/postgresql --username=$user --dbname=postgres --set=ON_ERROR_STOP=1 \
        --command="$2"
}

refused() { # refused PROPERTY SECRET MESSAGE POD PARAMETER…: the connection fails with this message
    local property=$1 secret=$2 message=$3
    shift 3
    if PGPASSWORD=$(cat "$WORK/secrets/$secret") psql -qAtX --dbname="$(conninfo "$@")" --command='SELECT 1' \
        >"$WORK/refused" 2>&1; then
        fail "accepted: $property"
    fi
    grep -q "$message" "$WORK/refused" || fail "$property: $(cat "$WORK/refused")"
    echo "ok: $property"
}

within() { # within SECONDS PROPERTY COMMAND…: wait until the command prints yes
    local end=$((SECONDS + $1)) property=$2
    shift 2
    until [ "$("$@" 2>/dev/null)" = yes ]; do
        [ $SECONDS -lt $end ] || { tail -n 20 "$WORK"/log*; fail "timed out: $property"; }
        sleep 0.1
    done
    echo "ok: $property"
}

streams() { # streams PRIMARY STANDBY
    super "$1" "SELECT 'yes' FROM pg_stat_replication
        WHERE application_name = 'postgresql-sfs-$2' AND state = 'streaming'"
}
has() { sql "$1" "SELECT 'yes' FROM tb_writes WHERE id = '$2'"; }
is_primary() { [ "$(super "$1" 'SELECT pg_is_in_recovery()')" = f ] || fail "Pod $1 is not the primary"; }
is_standby() { [ "$(super "$1" 'SELECT pg_is_in_recovery()')" = t ] || fail "Pod $1 is not a standby"; }

POD_NAME=
. "$WORK/environment"
if [ "$(id -u)" != 0 ]; then
    # The servers run as a user with another name, which `peer` rejects.
    sed -i 's/^\(local .*\) peer$/\1 trust/' "$WORK/config/pg_hba.conf"
fi
ip link set lo up
echo 'multi on' >"$WORK/host.conf"
resolve

# 1. All Pods start without data: Pod 0 creates the database, the others wait and copy it.
prepare 1 &
waiting=$!
start 0
wait $waiting || fail 'Pod 1 did not copy Pod 0'
grep -q 'waiting for a primary' "$(log 1)" || fail 'Pod 1 did not wait'
serve 1
start 2
is_primary 0
is_standby 1
is_standby 2
within 20 'Pod 0 streams to Pod 1' streams 0 1
within 20 'Pod 0 streams to Pod 2' streams 0 2
sql 0 "INSERT INTO tb_writes VALUES ('first')"
within 20 'Pod 1 has the row that was written on Pod 0' has 1 first
within 20 'Pod 2 has the row that was written on Pod 0' has 2 first

# All connections over the network use TLS, and each user can only use its own database.
encrypted() { sql 0 "SELECT 'yes' FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl AND version >= 'TLSv1.2'"; }
streams_encrypted() { super 0 "SELECT 'yes' FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)
    HAVING count(*) = 2 AND bool_and(ssl)"; }
within 5 'the application connects with TLS' encrypted
within 5 'both standbys receive the log with TLS' streams_encrypted
rejects='pg_hba.conf rejects connection'
refused 'the application cannot connect without TLS' app-password "$rejects.*no encryption" 0 sslmode=disable
refused 'the application cannot use another database' app-password "$rejects.*SSL encryption" 0 dbname=postgres
refused 'the superuser cannot connect over the network' postgres-password "$rejects" 0 user=$user dbname=postgres
refused 'the replication user cannot use the database of the application' replication-password "$rejects" \
    0 user=replicator
refused 'the replication user cannot connect without TLS' replication-password \
    'no pg_hba.conf entry for replication connection.*no encryption' 0 user=replicator replication=true sslmode=disable
refused 'a wrong password is rejected' replication-password 'password authentication failed' 0
refused 'a certificate for another name is rejected' app-password 'does not match host name' 0 host=other.example

# 2. Pods that restart after a crash keep their roles.
stop 1 QUIT
start 1
stop 0 QUIT
start 0
is_primary 0
within 30 'after restarts, Pod 0 streams to Pod 1' streams 0 1
within 30 'after restarts, Pod 0 streams to Pod 2' streams 0 2
within 5 'after restarts, Pod 0 has its data' has 0 first

# 3. The primary crashes and Pod 1 is promoted: Pod 0 returns as a standby of Pod 1, and so does Pod 2 after a restart.
# Pod 2 could not follow Pod 1 if it had received more of the log. It therefore stops receiving before Pod 1 does.
super 2 "ALTER SYSTEM SET primary_conninfo = ''"
super 2 'SELECT pg_reload_conf()' >"$WORK/ignored"
receives_no_more() { super 2 "SELECT 'yes' WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"; }
within 20 'Pod 2 receives no more of the log' receives_no_more
written=$(super 0 'SELECT pg_current_wal_flush_lsn()')
super 0 'SELECT pg_switch_wal()' >"$WORK/ignored"
received() { super 1 "SELECT 'yes' WHERE pg_last_wal_receive_lsn() >= '$written'"; }
within 20 'Pod 1 has received at least as much of the log as Pod 2' received
stop 0 QUIT
super 2 "ALTER SYSTEM RESET primary_conninfo"
super 1 'SELECT pg_promote()' >"$WORK/ignored"
sql 1 "INSERT INTO tb_writes VALUES ('second')"
start 0
is_standby 0
within 30 'the former primary Pod 0 streams from the promoted Pod 1' streams 1 0
within 20 'the former primary has the row that was written on Pod 1' has 0 second
# prepare.sh keeps data that cannot be rewound under another name.
! compgen -G "$WORK/volume0/pgdata.*" >"$WORK/ignored" || fail 'the former primary was copied instead of rewound'
stop 2 INT
start 2
within 30 'after a restart, Pod 2 streams from Pod 1' streams 1 2
sql 1 "INSERT INTO tb_writes VALUES ('third')"
within 20 'Pod 2 has the row that was written on Pod 1' has 2 third

# 4. All Pods stop and start again: they keep their roles.
stop 0 INT
stop 2 INT
stop 1 INT
start 0
start 1
start 2
is_standby 0
is_primary 1
is_standby 2
within 30 'after all Pods were down, Pod 1 streams to Pod 0' streams 1 0
within 30 'after all Pods were down, Pod 1 streams to Pod 2' streams 1 2

# 5. A Pod that has lost its volume copies the primary, also after an interrupted start. It never creates a second
# database.
stop 2 INT
find "$WORK/volume2" -mindepth 1 -delete
in_pod 2 sh -c 'mkdir "$PGDATA.new" && echo half >"$PGDATA.new/PG_VERSION"'
start 2
within 30 'Pod 2 copies the primary after it lost its volume' streams 1 2
[ ! -e "$WORK/volume2/pgdata.new" ] || fail 'the files of the interrupted start were not removed'
stop 0 INT
find "$WORK/volume0" -mindepth 1 -delete
start 0
is_standby 0
within 30 'Pod 0 copies the primary after it lost its volume' streams 1 0
within 20 'the copy has all rows' has 0 third

# The certificate is renewed: the server uses the new one without a restart.
serial() { openssl x509 -noout -serial -in "$1"; }
served() {
    openssl s_client -starttls postgres -connect "$(address 1):5432" </dev/null 2>/dev/null | openssl x509 -noout -serial
}
serves_the_new_one() { [ "$(served)" = "$(serial "$WORK/tls.new/tls.crt")" ] && echo yes; }
[ "$(served)" = "$(serial "$WORK/tls/tls.crt")" ] || fail 'the server does not use the certificate'
in_pod 1 bash -c 'echo $$ >/var/lib/postgresql/data/reload.pid; exec bash /etc/postgresql/reload.sh' \
    >>"$(log 1)" 2>&1 &
reloader=$!
reloaded() { grep -q '^reload: reloading' "$(log 1)" && echo yes; }
within 10 'the configuration is reloaded when the script starts' reloaded
cp -p "$WORK/tls.new"/* "$WORK/tls/"
within 20 'the server uses the renewed certificate' serves_the_new_one
[ "$(grep -c '^reload: reloading' "$(log 1)")" = 2 ] || fail 'the configuration was not reloaded exactly twice'
kill -INT "$(cat "$WORK/volume1/reload.pid")"
wait $reloader || fail 'the script does not end with success on the stop signal of the image'

# 6. Pod 0 loses its volume while the primary is down: it waits for the primary and does not create a database.
stop 0 INT
find "$WORK/volume0" -mindepth 1 -delete
stop 1 INT
: >"$(log 0)"
prepare 0 &
waiting=$!
waits() { grep -q 'waiting for a primary' "$(log 0)" && echo yes; }
within 20 'without data and without a primary, Pod 0 waits' waits
[ ! -e "$WORK/volume0/pgdata" ] || fail 'Pod 0 created a second database'
start 1
wait $waiting || fail 'Pod 0 did not copy Pod 1'
serve 0
within 30 'Pod 0 copies the primary once the primary is back' streams 1 0
stop 2 INT
stop 0 INT
stop 1 INT
echo 'all done'
