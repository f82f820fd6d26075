# namespace.sh FOLDER COMMAND…: run COMMAND where FOLDER/valohai is /valohai.
# In a private mount namespace: a tmpfs root that holds the host's top-level entries; the host sees nothing of it.
set -e
folder=$1
shift
root=$folder/root
mkdir -p "$root"
mount -t tmpfs -o mode=755 tmpfs "$root"
for entry in /* /.[!.]*; do
    name=${entry#/}
    { [ -e "$entry" ] || [ -L "$entry" ]; } || continue
    [ "$name" = valohai ] && continue
    if [ -L "$entry" ]; then
        cp -P "$entry" "$root/$name"
    elif [ -d "$entry" ]; then
        mkdir "$root/$name"
        mount --rbind "$entry" "$root/$name"
    else
        : >"$root/$name"
        mount --bind "$entry" "$root/$name"
    fi
done
mkdir "$root/valohai"
mount --bind "$folder/valohai" "$root/valohai"
exec chroot "$root" sh -c 'cd /valohai/repository && exec "$@"' sh "$@"
