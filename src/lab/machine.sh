#!/bin/bash
# A machine inside this one, for labs and tests: mount, network, pid, uts and cgroup namespaces of its own.
#
#   machine.sh run ID DIRECTORY ARTIFACT [REPOSITORY [PAYLOAD]]   lives as long as its stdin is open, then cleans up
#   machine.sh enter ID PID COMMAND...                            runs a command inside, in the machine's cgroups
#   machine.sh clean ID DIRECTORY                                 removes what one has left that was killed with its parent
#
# ARTIFACT is what runs as k8s inside, and may be empty. PAYLOAD is the artifact's, unpacked: machines that share it unpack
# nothing. The repository is there for tests. The host name is what follows the second dash of the ID.
#
# `run` stays outside, as the parent of everything inside, so that it can remove the cgroups and the
# directory however the test runner ended: SIGKILL closes the runner's end of stdin too.
set -euo pipefail

# What the kubelet writes in /proc/sys is the whole host's, not a namespace's: it gets files instead.
readonly host_sysctls='vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes'
# What the machine has of its own instead of the host's, and what of the host's /etc would be taken for its own.
readonly replaced='/var/lib /var/log /run /tmp'
readonly foreign_files='/etc/k8s /etc/cni /etc/containerd /etc/crictl.yaml /etc/docker /etc/kubernetes'
readonly node_address=10.89.0.2

# Prints one line for each cgroup hierarchy: version, options (v1), mount point.
hierarchies() {
  local target type options
  while read -r _ target type options _; do
    case $type in
      cgroup) echo "v1 $(v1_controllers "$options") $target" ;;
      cgroup2) echo "v2 - $target" ;;
    esac
  done </proc/self/mounts
}

# rw,relatime,cpu,cpuacct -> cpu,cpuacct
v1_controllers() {
  tr , '\n' <<<"$1" | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|noatime|xattr|clone_children|release_agent=.*' | paste -sd,
}

make_cgroups() {
  local version controllers target group
  hierarchies | while read -r version controllers target; do
    group=$target/$1
    mkdir "$group"
    if [[ $controllers == *cpuset* ]]; then
      cat "$target/cpuset.cpus" >"$group/cpuset.cpus"
      cat "$target/cpuset.mems" >"$group/cpuset.mems"
    fi
    # A v2 group that delegates controllers holds no processes itself, so they live in a leaf.
    [[ $version == v1 ]] || mkdir "$group/init"
  done
}

# The cgroup namespace must be rooted at the group itself; later comers join the leaf.
join_cgroups() {
  local version target group list
  # A substitution that bash waits for: a child left behind would become nsenter's first.
  list=$(hierarchies)
  while read -r version _ target; do
    group=$target/$1
    [[ $version == v1 || ${2-} == root ]] || group=$group/init
    echo "$BASHPID" >"$group/cgroup.procs"
  done <<<"$list"
}

remove_cgroups() {
  local target
  while read -r _ _ target; do
    [[ -d $target/$1 ]] || continue
    # Dead processes leave their groups a moment after they were reaped.
    for _ in {1..100}; do
      find "$target/$1" -depth -type d -exec rmdir {} + 2>/dev/null && break
      sleep 0.1
    done
    [[ ! -d $target/$1 ]] || echo "cannot remove $target/$1" >&2
  done < <(hierarchies)
}

run() {
  local id=$1 directory=$2
  # A stop signal ends all inside; the clean-up below always runs. unshare itself takes no milder one.
  trap 'kill -KILL "$inside" 2>/dev/null || true' TERM INT HUP
  make_cgroups "$id"
  # Only the subshell moves, so that this process can remove the groups.
  (
    join_cgroups "$id" root
    exec unshare --mount --net --pid --fork --uts --cgroup --kill-child=SIGKILL \
      /bin/bash "$0" inside "$@"
  ) <&0 &
  inside=$!
  local status=0
  wait "$inside" || status=$?
  # `wait` returns early when a signal came; the namespace must be gone before its directory goes.
  wait "$inside" 2>/dev/null || true
  if [[ -n ${K8S_TEST_KEEP-} ]]; then remove_cgroups "$id"; else clean "$id" "$directory"; fi
  exit "$status"
}

clean() {
  remove_cgroups "$1"
  rm -rf --one-file-system "$2"
}

inside() {
  local id=$1 directory=$2 artifact=$3 repository=${4-} payload=${5-} host_pid
  # This /proc is still the host's, and shows the number that the host knows this process by.
  read -r host_pid _ </proc/self/stat
  mount_filesystems "$directory" "$artifact" "$repository" "$payload"
  set_up_network
  hostname "${id#k8s-*-}"
  hostname >/etc/hostname
  echo "ready $host_pid"
  # bash reaps what is orphaned to it, as pid 1 must, while it waits for the end of its stdin.
  while read -r; do :; done
}

mount_filesystems() {
  local directory=$1 artifact=$2 repository=$3 payload=$4 cgroup_mounts=$1/cgroup-mounts
  # Staged before anything is hidden: the repository may be below a directory that is replaced.
  mkdir -p "$directory/run" "$directory/lib" "$directory/log"
  mount -t tmpfs -o mode=755 tmpfs "$directory/run"
  mkdir -p "$directory"/run/{repository,bin,lock,etc/upper,etc/work}
  [[ -z $repository ]] || mount --bind "$repository" "$directory/run/repository"
  [[ -z $payload ]] || share_payload "$directory" "$payload"
  touch "$directory/run/bin/k8s"
  [[ -z $artifact ]] || mount --bind "$artifact" "$directory/run/bin/k8s"
  unmount_foreign "$directory" "$artifact" "$repository" "$payload"
  mount -t overlay -o "lowerdir=/etc,upperdir=$directory/run/etc/upper,workdir=$directory/run/etc/work" overlay /etc
  # shellcheck disable=SC2086 # a list
  rm -rf $foreign_files
  mount --bind "$directory/log" /var/log
  hierarchies >"$cgroup_mounts"
  exec 3<"$cgroup_mounts"
  umount --recursive --lazy /run 2>/dev/null || true
  mount --no-mtab --move "$directory/run" /run
  # The last of the directory, which may be below it.
  mount --rbind "$directory/lib" /var/lib
  mount -t tmpfs tmpfs /tmp
  if [[ -n $repository && ! -e $repository/package.json ]]; then
    mkdir -p "$repository"
    mount --bind /run/repository "$repository"
  fi
  mount_kernel_filesystems
  printf 'nameserver %s\n' "$node_address" >/run/etc/resolv.conf
  mount --bind /run/etc/resolv.conf /etc/resolv.conf
  # The kubelet hands volumes to containers by mount propagation.
  mount --make-rshared /
}

# Where the launcher looks for it before it unpacks (launcher.c).
share_payload() {
  local place=$1/lib/k8s/data/${2##*/}
  mkdir -p "$1/lib/k8s"
  chmod 0755 "$1/lib/k8s"
  mkdir -p "$place"
  mount --bind "$2" "$place"
  mount -o remount,bind,ro "$place"
}

# A mount of the host's below a directory that is replaced could not be seen any more, but would still be listed: another
# kubelet's at /var/lib/kubelet, for one. Those stay that hold what the machine itself needs.
unmount_foreign() {
  local target needed
  awk '{print $5}' /proc/self/mountinfo | tac | while read -r target; do
    target=$(printf '%b' "$target")
    is_below_replaced "$target" || continue
    for needed in "$@"; do
      [[ $needed/ != "$target"/* ]] || continue 2
    done
    # What is mounted on another mount goes with it.
    [[ $target/ == "$1"/* ]] || umount --lazy "$target" 2>/dev/null || true
  done
}

is_below_replaced() {
  local directory
  for directory in $replaced; do
    [[ $1/ != "$directory"/* ]] || return 0
  done
  return 1
}

# Fresh ones, of the new namespaces; the hierarchies to mount are read from descriptor 3.
mount_kernel_filesystems() {
  local version controllers target
  umount --recursive --lazy /sys
  mount -t sysfs sysfs /sys
  while read -r version controllers target <&3; do
    [[ $version == v2 && $target == /sys/fs/cgroup ]] || mountpoint -q /sys/fs/cgroup || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    mkdir -p "$target"
    case $version in
      v1) mount -t cgroup -o "$controllers" cgroup "$target" ;;
      v2) mount -t cgroup2 cgroup2 "$target" && echo $$ >"$target/init/cgroup.procs" ;;
    esac
  done
  exec 3<&-
  umount --recursive --lazy /proc
  mount -t proc proc /proc
  shield_sysctls
}

# Also for a /proc that something inside has mounted anew: bash -s shield_sysctls <machine.sh
shield_sysctls() {
  local sysctl
  mkdir -p /run/sysctl
  for sysctl in $host_sysctls; do
    [[ -e /proc/sys/$sysctl ]] || continue
    cat "/proc/sys/$sysctl" >"/run/sysctl/${sysctl//\//.}"
    mount --bind "/run/sysctl/${sysctl//\//.}" "/proc/sys/$sysctl"
  done
}

# A default route to nobody: what the machine would send to a network ends in the veth's other end.
set_up_network() {
  ip link set lo up
  ip link add eth0 type veth peer name nowhere
  ip address add "$node_address/24" dev eth0
  ip link set nowhere up
  ip link set eth0 up
  ip route add default via 10.89.0.1
}

enter() {
  local id=$1 pid=$2
  shift 2
  join_cgroups "$id"
  exec nsenter --target "$pid" --mount --net --pid --uts --cgroup --wdns=/ -- "$@"
}

"$@"
