#!/usr/bin/env bash
# Puts the artifact and its systemd unit in place, or takes them away: install.sh install|uninstall DESTDIR PREFIX
source "$(dirname "$0")/lib.sh"

action=${1:?usage: install.sh install|uninstall DESTDIR PREFIX}
destination=${2-}
prefix=${3:?usage: install.sh install|uninstall DESTDIR PREFIX}
binary=$prefix/bin/k8s
unit=$destination/etc/systemd/system/k8s.service
environment=$destination/etc/k8s/k8s.env

# A staged tree (DESTDIR) belongs to no running systemd.
reload() {
  if [[ -z $destination && -d /run/systemd/system ]]; then systemctl daemon-reload; fi
}

case $action in
  install)
    [[ -n $destination || -w $(dirname "$unit") ]] || fail "install as $(id -un). Run: sudo make install"
    install -D -m 755 "$root/dist/artifacts/k8s" "$destination$binary.tmp"
    mv "$destination$binary.tmp" "$destination$binary"
    mkdir -p "$(dirname "$unit")"
    sed "s|^ExecStart=/usr/local/bin/k8s|ExecStart=$binary|" "$root/systemd/k8s.service" >"$unit.tmp"
    mv "$unit.tmp" "$unit"
    [[ -e $environment ]] || install -D -m 600 "$root/systemd/k8s.env.example" "$environment"
    reload
    say "installed $destination$binary; start it with: systemctl enable --now k8s"
    ;;
  uninstall)
    if [[ -z $destination && -d /run/systemd/system ]] && systemctl is-active --quiet k8s; then
      fail "uninstall while k8s runs. Run: k8s stop --pods && systemctl disable --now k8s && k8s reset"
    fi
    rm -f "$destination$binary" "$unit"
    reload
    say "removed $destination$binary and its unit; $(dirname "$environment") and the data directory are left"
    ;;
  *) fail "do $action: want install or uninstall" ;;
esac
