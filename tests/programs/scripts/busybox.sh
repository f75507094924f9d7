# Applets of a static busybox, its shell among them.
bb=${BUSYBOX:-busybox}
$bb echo one two | $bb tr a-z A-Z
$bb seq 1 20 | $bb sort -rn | $bb head -n 3
$bb printf '%s\n' pear apple fig apple | $bb sort | $bb uniq -c | $bb sed 's/^ *//'
$bb mkdir -p dir/sub
$bb echo content > dir/file
$bb cp dir/file dir/sub/copy
$bb ln -s ../file dir/sub/link
$bb cat dir/sub/link
$bb ls -1 dir dir/sub
$bb find dir -type f | $bb sort
$bb stat -c '%s %F' dir/file
$bb md5sum dir/file
$bb sha256sum < dir/file
$bb wc dir/file
$bb tar cf dir.tar dir && $bb tar tf dir.tar | $bb sort
$bb gzip -c dir.tar | $bb gunzip -c | $bb cmp - dir.tar && $bb echo same
$bb awk 'BEGIN { for (i = 1; i <= 5; i++) s += i * i; print s }'
$bb grep -c content dir/file
$bb dd if=/dev/zero of=zeros bs=1024 count=100 2>/dev/null; $bb wc -c < zeros
$bb od -c dir/file | $bb head -n 1
$bb expr 6 \* 7
$bb test -d dir && $bb echo directory
$bb basename /a/b/c.txt .txt
$bb dirname /a/b/c.txt
$bb cut -d: -f1 /etc/passwd | $bb head -n 1
$bb sleep 0.01
$bb env -i A=1 $bb env
$bb sh -c 'trap "echo trapped" EXIT; x=5; while [ $x -gt 0 ]; do x=$((x - 1)); done; echo $x'
$bb sh -c 'sleep 0.01 & wait $!; echo $?'
$bb sh -c 'kill -TERM $$'; $bb echo "status $?"
$bb xargs -n 2 $bb echo < dir/file
$bb rm -r dir dir.tar zeros
$bb ls -1
$bb id -u > /dev/null && $bb echo id
$bb false; $bb echo "false $?"
