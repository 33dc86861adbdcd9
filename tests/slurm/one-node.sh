#!/bin/sh
# A Slurm cluster of one node on this machine, for tests: without systemd, beside one that may be installed, and gone afterwards.
#
#     one-node.sh start DIR    prints the path of its slurm.conf, for SLURM_CONF; exit status 3 where it cannot be had, with the reason
#     one-node.sh stop DIR
#
# Installs nothing. Needed (Debian): slurmctld slurmd slurm-client munge, and root. Everything lies in DIR.
set -eu

cannot() {
    echo "no Slurm: $*" >&2
    exit 3
}

# free_port FROM: the first port from there on that nobody listens at.
free_port() {
    port=$1
    while grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$port") .* 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

start() {
    for tool in munged mungekey slurmctld slurmd sbatch squeue scontrol; do
        command -v "$tool" >/dev/null 2>&1 || cannot "$tool is missing; Debian: apt-get install slurmctld slurmd slurm-client munge"
    done
    [ "$(id -u)" -eq 0 ] || cannot "its daemons are started as root only"
    [ "$(uname -s)" = Linux ] || cannot "this is not Linux"
    mkdir -p "$dir/state" "$dir/spool" "$dir/munge"
    chmod 700 "$dir/munge"
    host=$(cat /proc/sys/kernel/hostname)
    memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    # Two ports for each number of a process: clusters that are started together keep apart.
    control=$(free_port $((20000 + 2 * $$ % 20000)))
    node=$(free_port $((control + 1)))
    cat >"$dir/slurm.conf" <<END
ClusterName=onenode
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmdPort=$node
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
MinJobAge=600
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=60 State=UP
END
    mungekey --create --keyfile="$dir/munge/key" >/dev/null 2>&1 || cannot "mungekey makes no key"
    munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge/seed" >/dev/null 2>&1 || failed "munged does not start"
    SLURM_CONF=$dir/slurm.conf
    export SLURM_CONF
    # They are daemons of their own: no pipe of the caller's may stay open in them.
    slurmctld -f "$SLURM_CONF" >/dev/null 2>"$dir/slurmctld.err" </dev/null || failed "slurmctld does not start"
    slurmd -f "$SLURM_CONF" >/dev/null 2>"$dir/slurmd.err" </dev/null || failed "slurmd does not start"
    tries=0
    until [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 120 ] || failed "its node does not come up"
        sleep 0.25
    done
    echo "$SLURM_CONF"
}

# failed REASON: stops what was started, and says why with the daemons' last words.
failed() {
    tail -n 5 "$dir"/*.err "$dir"/*.log >&2 2>/dev/null || true
    stop
    cannot "$@"
}

stop() {
    for name in slurmd slurmctld munged; do
        pid=$(cat "$dir/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || continue
        tries=0
        while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 40 ]; do
            tries=$((tries + 1))
            sleep 0.25
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

[ $# -eq 2 ] || { echo "usage: one-node.sh start|stop DIR" >&2; exit 2; }
dir=$2
case $1 in
start) start ;;
stop) stop ;;
*)
    echo "usage: one-node.sh start|stop DIR" >&2
    exit 2
    ;;
esac
