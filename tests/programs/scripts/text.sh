# grep, sed and awk.
printf 'alpha 10\nbeta 20\nGamma 30\ndelta 40\nalphabet 50\n' > data
grep alpha data; grep -c a data; grep -v a data; grep -i gamma data; grep -n '^d' data; grep -o '[0-9]*' data | paste -sd+
grep -E '(al|be)' data; grep -F '1' data; grep -w alpha data; grep -l alpha data; grep -q zeta data; echo "grep $?"; grep -r beta . | sort; grep -A1 -B1 Gamma data; grep -P '\d{2}$' data | wc -l; grep x absent 2>/dev/null; echo "grep $?"
sed 's/a/A/' data; sed -n '2,3p' data; sed '/beta/d' data; sed -e 's/\([a-z]*\) \([0-9]*\)/\2 \1/' data; sed '$!N;s/\n/ /' data; sed -i.bak 's/10/11/' data; head -n 1 data data.bak; sed -n '$=' data; sed y/abc/xyz/ data | head -n 1; printf 'a\nb\n' | sed '1i first' | sed '$a last'; sed -n '/beta/,/delta/{s/ .*//;p}' data
for awk in mawk gawk; do
  echo "$awk"
  $awk '{ s += $2 } END { print s, NR }' data; $awk -F' ' '$2 > 20 { print $1 }' data; $awk '{ c[substr($1, 1, 1)]++ } END { for (k in c) print k, c[k] | "sort"; close("sort") }' data
  $awk 'BEGIN { printf "%.3f %d %s\n", 3.14159, 42, toupper("x"); print length("hello"), index("abc", "c"), match("xaab", /a+/), RLENGTH }'
  $awk 'BEGIN { while (("echo one; echo two" | getline line) > 0) print "got", line }'; $awk 'BEGIN { "date -u -d @0 +%Y" | getline y; print y; system("echo from system"); exit 3 }'; echo "$awk $?"
  $awk '{ gsub(/a/, "_"); print > "out-" NR } END { close("out-1"); while ((getline l < "out-1") > 0) print l }' data; $awk -v x=5 'BEGIN { print x * 2, 2 ^ 10, 7 % 3; split("a:b:c", p, ":"); print p[3]; print ENVIRON["LC_ALL"] }'
  $awk 'function f(n) { return n < 2 ? n : f(n - 1) + f(n - 2) } BEGIN { print f(18) }'
done
gawk 'BEGIN { n = asort(a); print n, strftime("%Y", 0, 1), gensub(/(b)(c)/, "\\2\\1", "g", "abcabc"); print systime() > 0 }'; ls 0 2>/dev/null
