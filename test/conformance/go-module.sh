# Sourced by the suites that are compiled from a copy of an upstream module.
# shellcheck shell=bash disable=SC2154 # here: the folder of the suite

# copy_module MODULE@VERSION TARGET [EDIT]: the module's sources at TARGET, copied once. EDIT is called with the copy before
# it gets its name: what is there is whole.
copy_module() {
  local sources
  [[ -d $2 ]] && return
  sources=$(cd "$here" && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  rm -rf "$2.tmp"
  cp -r "$sources" "$2.tmp"
  chmod -R u+w "$2.tmp"
  "${3:-:}" "$2.tmp"
  mv "$2.tmp" "$2"
}
