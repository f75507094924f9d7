# A POSIX shell: pipelines, here-documents, traps, expansions, redirections, background jobs.
set -u
echo "pipeline: $(printf 'c\na\nb\n' | sort | tr '\n' ' ' | sed 's/ $//')"
cat <<END
here-document with $((1 + 2)) and $(echo substitution)
	tab kept
END
cat <<-'END'
	quoted $HOME stays
	END
name=value
echo "${name} ${absent:-default} ${#name} ${name%ue} ${name#v}"
case abc.txt in *.txt) echo text ;; *) echo other ;; esac
for i in 1 2 3; do [ "$i" = 2 ] && continue; echo "loop $i"; done
i=0
while [ $i -lt 1000 ]; do i=$((i + 1)); done
echo "counted $i"
f() { local x=inner; echo "function $1 $x"; return 7; }
f argument; echo "returned $?"
(cd / && pwd); x=outer; (x=changed); echo "$x"
echo error >&2 2>/dev/null
{ echo to-file; echo second; } > out.txt; cat < out.txt
echo appended >> out.txt; wc -l < out.txt
exec 3> three.txt; echo through-3 >&3; exec 3>&-; cat three.txt
ls /absent/file 2>/dev/null || echo "failed as it should"
false | true; echo "pipeline status $?"
sh -c 'exit 3'; echo "status $?"
sh -c 'kill -9 $$'; echo "killed $?"
(sleep 0.05; echo background > bg.txt) &
wait $!; cat bg.txt
for n in 1 2 3; do (echo "job $n" > job$n) & done; wait; cat job1 job2 job3
trap 'echo "got USR1"' USR1; kill -USR1 $$
trap 'echo "cleaning up"' EXIT
(trap 'echo "subshell exits"' EXIT; exit 5); echo "subshell $?"
mkfifo fifo; (echo "through a fifo" > fifo) & cat fifo; wait
seq 1 100000 | tail -n 1
yes | head -n 3
echo 'a b c' | { read one rest; echo "$one/$rest"; }
printf '%s|%5d|%-5s|%x\n' text 42 left 255
umask 077; : > masked; umask 022; stat -c %a masked
set -- one "two words" three; echo "$# $2"; shift; echo "$1"
ulimit -n > /dev/null && echo "limits"
test -x /bin/sh && echo executable
command -v sh > /dev/null && echo found
eval 'echo evaluated'
. ./out.sourced 2>/dev/null || echo 'sourcing failed' &
wait
echo done
exit 9
