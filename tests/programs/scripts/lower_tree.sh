# Changes of every kind to a tree that is there already: see test_host_untouched.py.
set -u
show() { find . -mindepth 1 -printf '%p %y %m %s %n %l\n' | sed -E 's/^([^ ]+) d ([0-7]+) [0-9]+ [0-9]+ /\1 d \2/' | sort; }
show
echo appended >> tree/file; tail -n 1 tree/file; cat tree/file | wc -l
chmod 600 tree/a/one; stat -c %a tree/a/one; touch -d '2005-05-05 UTC' tree/a/two; stat -c %Y tree/a/two
mv tree/a tree/moved; cat tree/moved/one; ls tree/a 2> /dev/null || echo gone
mv tree/moved/one tree/b/one-moved; cat tree/b/one-moved; mv tree/b tree/moved/b; cat tree/moved/b/deep/file
ln tree/file tree/hard; echo through the link >> tree/hard; tail -n 1 tree/file; stat -c %h tree/file
ln -s file tree/soft; readlink tree/soft; cat tree/link; rm tree/link; ln -s moved tree/link; ls tree/link/
rmdir tree/empty; mkdir tree/empty; touch tree/empty/new; ls -A tree/empty
rm -r tree/full; mkdir tree/full; ls -A tree/full; echo again > tree/full/x; cat tree/full/*
: > tree/truncated; wc -c < tree/truncated; truncate -s 10 tree/big; wc -c < tree/big
dd if=/dev/zero of=tree/patched bs=1 count=3 seek=2 conv=notrunc status=none; od -An -c tree/patched
cp tree/first tree/copied; cmp tree/first tree/copied && echo equal; mv -T tree/copied tree/first; cat tree/first
mv tree/pair1 tree/pair2; cat tree/pair2; ls tree/pair1 2> /dev/null || echo gone
cat tree/linked1; echo both >> tree/linked1; cat tree/linked2; stat -c %h tree/linked1; rm tree/linked2; stat -c %h tree/linked1
exec 3< tree/open; rm tree/open; cat <&3; exec 3<&-; (cd tree/cwd && rm -r ../cwd && ls -A . ; mkdir x 2> /dev/null || echo removed)
rm -r tree/nested; ls tree/nested 2> /dev/null || echo gone; mkdir -p tree/nested/again/and; find tree/nested | sort
for n in $(seq 1 40); do rm "tree/many/f$n"; done; ls tree/many | wc -l; rm -r tree/many; ls tree | wc -l
mkfifo tree/fifo; rm tree/fifo; tar cf - tree | tar tf - | wc -l
show
