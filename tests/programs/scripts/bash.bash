# What bash adds: arrays, process substitution, here-strings, coprocesses, job control, pipefail.
set -o pipefail
words=(alpha beta "gamma delta")
echo "${#words[@]} ${words[2]} ${words[@]:1:1}"
declare -A map=([one]=1 [two]=2)
for key in $(printf '%s\n' "${!map[@]}" | sort); do echo "$key=${map[$key]}"; done
diff <(printf '1\n2\n3\n') <(printf '1\nx\n3\n'); echo "diff $?"
while read -r line; do echo "read $line"; done < <(printf 'a\nb\n')
tr a-z A-Z <<< "here string"
tee >(wc -c > count) < <(echo 12345) > /dev/null
until [[ -s count ]]; do sleep 0.01; done; cat count
false | true; echo "pipefail $?"
false | true | sh -c "exit 3"; echo "${PIPESTATUS[@]}"
[[ "2024-05-06" =~ ^([0-9]+)-([0-9]+) ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
text=hello; echo "${text^^} ${text/l/L} ${text:1:3} ${text//l/_}"
printf -v padded '%05d' 42; echo "$padded"
coproc CAT { cat; }
echo "to the coprocess" >&"${CAT[1]}"; read -r answer <&"${CAT[0]}"; echo "$answer"
exec {CAT[1]}>&-; wait "$CAT_PID"; echo "coprocess $?"
sleep 30 & pid=$!; kill "$pid"; wait "$pid" 2>/dev/null; echo "background $?"
for n in 3 1 2; do (sleep "0.0$n"; exit "$n") & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; echo "waited $?"; done
trap 'echo "interrupted"' INT; kill -INT $$
trap 'echo "error trap"' ERR; false; trap - ERR
function nested { local depth=$1; ((depth == 0)) && return 4; nested $((depth - 1)); }
nested 50; echo "nested $?"
shopt -s nullglob globstar; mkdir -p g/h; touch g/a.c g/h/b.c
echo g/**/*.c; echo none*
mapfile -t lines < <(seq 5); echo "${lines[*]}"
bash -mc 'sleep 30 & kill -STOP %1; until grep -q "^State:.T" /proc/$!/status; do :; done; kill -KILL %1; wait %1; echo "ended $?"' 2> /dev/null
(exec -a renamed bash -c 'echo $0')
time_taken=$( { time -p true; } 2>&1 | wc -l); echo "time lines $time_taken"
echo {1..5} {a..e}
let "x = 2 ** 10"; echo "$x $((16#ff)) $((x > 5 ? 1 : 0))"
select_output=$(printf '2\n' | bash -c 'select w in one two; do echo "picked $w"; break; done' 2>/dev/null); echo "$select_output"
cat /dev/fd/3 3<<< "from fd 3"
exec 4<> rw; echo "read write" >&4; exec 4>&-; cat rw
exit 11
