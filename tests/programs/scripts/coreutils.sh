# Coreutils, broadly.
set -e
printf 'delta 4\nalpha 1\ncharlie 3\nbravo 2\n' > data
sort data; sort -k2,2nr data; sort -R data | wc -l
cut -d" " -f1 data | paste -sd,; sort data > sorted; join sorted sorted | head -n 1
head -n 1 data; tail -n 1 data; tac data; nl data; rev data 2>/dev/null | head -n 1
tr -d aeiou < data; fold -w 4 data | head -n 3; expand data; unexpand data | head -n 1
comm -12 data data | wc -l; uniq -d data; shuf -n 2 data | wc -l
split -l 2 data part-; cat part-aa part-ab | cmp - data && echo split
csplit -s data 2; cat xx00
seq -w 8 11; factor 5040; numfmt --to=iec 1048576; expr length hello
echo abc | md5sum; echo abc | sha1sum; echo abc | sha256sum; echo abc | sha512sum | cut -c1-20; echo abc | cksum
echo abc | base64; echo YWJjCg== | base64 -d; echo abc | base32; echo abc | od -An -tx1
mkdir -p tree/a/b; touch tree/one tree/a/two; cp -r tree copy; ls -R copy; ls -A tree | wc -l
mv copy moved; rm -r moved; ln tree/one hard; ln -s tree/one soft; readlink soft; stat -c '%h %s %F' hard; readlink -f soft | xargs basename
install -m 750 data installed; stat -c %a installed; chmod u=rw,go= installed; stat -c %A installed
touch -d '2020-01-02 03:04:05 UTC' dated; date -u -r dated '+%F %T'; stat -c %Y dated
date -u -d @86400 +%FT%TZ; date -u -d '2024-02-28 + 2 days' +%F
truncate -s 1M big; stat -c %s big; du --apparent-size -k big | cut -f1; dd if=big of=small bs=4k count=3 status=none; stat -c %s small
mktemp -d ./tmp.XXXXXX > made; test -d "$(cat made)" && echo mktemp; rmdir "$(cat made)"
mkfifo pipe; test -p pipe && echo fifo; mknod p2 p; rm pipe p2
wc data; cat -A data | head -n 1; tee copy1 copy2 < data > /dev/null; cmp copy1 copy2 && echo tee
yes no | head -n 2; echo -n no newline; echo; printf '%b' 'a\tb\n'; env -i X=1 env; env -u HOME sh -c 'echo ${HOME-unset}'
timeout 0.05 sleep 10 || echo "timeout $?"; timeout 5 true && echo in-time
nice -n 5 nice; nohup true 2>/dev/null; stdbuf -oL echo buffered
sync; df . > /dev/null && echo df; id > /dev/null && echo id; uname -s; hostname > /dev/null 2>&1; nproc > /dev/null && echo nproc; tty || true
basename /x/y.c .c; dirname /x/y.c; pwd | xargs basename > /dev/null; realpath --relative-to=. tree/a
test 1 -lt 2 -a -n x && echo test; [ -e absent ] || echo absent; pathchk data && echo pathchk
tsort <<END
a b
b c
END
pr -t -2 -l 4 data | head -n 2; echo "one two three four five six seven" | fmt -w 15
ptx -G < /dev/null; dircolors -b > /dev/null && echo dircolors; arch
cp --sparse=always big sparse && cmp big sparse && echo sparse; cp -p dated dated2; stat -c %Y dated2; cp --reflink=auto data ref; cmp data ref && echo reflink
rm -f big sparse; ls; ls /absent 2> /dev/null || echo "ls $?"; shred -u ref; test -e ref || echo shredded
sleep 0.01; false || echo false; true && echo true; link data linked; unlink linked; test -e linked || echo unlinked
seq 50000 | shuf --random-source=/dev/zero | sort -n | md5sum
