#!/usr/bin/env bash
# Makes a directory, for an image, of files from Debian's packages with the libraries that they are linked with. All lies below
# usr, as where Debian has merged it. var/lib/dpkg/status.d says which packages they are from, as scanners of images read it.
#
#   [ARCH=amd64|arm64|arm] debian-files.sh OUTPUT PACKAGE... -- FILE...
#
# FILE may be a pattern. Packages are of the release that this machine has, of whatever architecture; apt verifies them by the
# signed list.
source "$(dirname "$0")/lib.sh"

output=${1:?usage: debian-files.sh OUTPUT PACKAGE... -- FILE...}
shift
packages=()
while [[ ${1:-} != -- ]]; do
  packages+=("${1:?usage: debian-files.sh OUTPUT PACKAGE... -- FILE...}")
  shift
done
shift

case ${ARCH:=amd64} in
  amd64) debian=amd64 triplet=x86_64-linux-gnu ;;
  arm64) debian=arm64 triplet=aarch64-linux-gnu ;;
  arm) debian=armhf triplet=arm-linux-gnueabihf ;;
  *) fail "take Debian's packages for ARCH=$ARCH: want amd64, arm64 or arm" ;;
esac

# What apt keeps of the architecture lies beside what it keeps of this machine, which it may not know it as.
apt=$build/arch/$ARCH/apt
mkdir -p "$apt"/{lists/partial,archives/partial}
apt_get() {
  apt-get -qq -o APT::Architecture="$debian" -o APT::Architectures="$debian" -o APT::Sandbox::User=root \
    -o Dir::State::Lists="$apt/lists" -o Dir::State::Status=/dev/null -o Dir::Cache="$apt" \
    -o Acquire::Languages=none "$@"
}

work=$(mktemp -d "$build/debian.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree made=$work/made
mkdir -p "$work/packages" "$made" "$tree"/usr/{bin,sbin,lib,lib64}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done

(cd "$work/packages" && { apt_get download "${packages[@]}" 2>/dev/null || { apt_get update && apt_get download "${packages[@]}"; }; }) ||
  fail "download the Debian packages ${packages[*]} for $debian"
for package in "$work"/packages/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --directory="$tree"
  name=$(dpkg-deb --field "$package" Package)
  mkdir -p "$made/var/lib/dpkg/status.d"
  dpkg-deb --field "$package" Package Source Version Architecture Maintainer Description |
    sed '/^Description: /q' >"$made/var/lib/dpkg/status.d/$name"
done

# What a program or library is run with: its loader, and what that has to find.
needed() {
  readelf --dynamic --program-headers --wide "$1" 2>/dev/null |
    sed -n -e 's/.*(NEEDED).*\[\(.*\)\]$/\1/p' -e 's/.*Requesting program interpreter: \(.*\)\]$/\1/p'
}

# library NAME: where it is in the tree. The loader itself has a path.
library() {
  local directory
  [[ $1 != /* ]] || { printf '%s' "usr$1" && return; }
  for directory in "usr/lib/$triplet" usr/lib64 usr/lib; do
    [[ ! -e $tree/$directory/$1 ]] || { printf '%s' "$directory/$1" && return; }
  done
  fail "find $1 in the Debian packages ${packages[*]}: name the one that has it"
}

take() {
  local path=$1 target
  [[ ! -e $made/$path && ! -L $made/$path ]] || return 0
  mkdir -p "$made/$(dirname "$path")"
  cp --no-dereference "$tree/$path" "$made/$path"
  if [[ -L $tree/$path ]]; then
    target=$(readlink "$tree/$path")
    [[ $target == /* ]] && target=$tree$target || target=$tree/$(dirname "$path")/$target
    take "$(realpath --relative-to="$tree" "$target")"
    return
  fi
  local name where
  while read -r name; do
    where=$(library "$name") || exit 1
    take "$where"
  done < <(needed "$tree/$path")
}

for pattern; do
  found=
  for file in "$tree"/$pattern; do
    [[ -e $file || -L $file ]] || continue
    found=1
    take "${file#"$tree/"}"
  done
  [[ -n $found ]] || fail "find $pattern in the Debian packages ${packages[*]}"
done

# The release, as scanners and the kubelet look for it.
mkdir -p "$made/usr/lib"
grep -E '^(NAME|PRETTY_NAME|ID|VERSION_ID|VERSION_CODENAME)=' /etc/os-release >"$made/usr/lib/os-release"

mkdir -p "$(dirname "$output")"
rm -rf "$output"
mv "$made" "$output"
