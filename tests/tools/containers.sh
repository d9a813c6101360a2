# To be sourced: podman and buildah with storage of this checkout's own, untouched by what else runs on the machine.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(dirname "$(dirname "$tools")")/.cache/peers
export HILGATE_ROOTS=$cache/roots
export CONTAINERS_CONF=$tools/containers.conf
export CONTAINERS_STORAGE_CONF=$cache/containers/storage.conf
mkdir -p "$cache/containers"
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$cache/containers/storage"
runroot = "/run/hilgate-containers-$(printf %s "$cache" | sha256sum | cut -c 1-8)"
END
