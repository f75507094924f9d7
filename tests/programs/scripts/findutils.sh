# find and xargs.
mkdir -p a/b/c a/d; for i in 1 2 3; do echo "$i" > a/f$i.txt; echo "$i$i" > a/b/g$i.log; done
ln -s ../f1.txt a/d/link; touch -d '2001-01-01' a/old; : > a/empty; chmod 700 a/f2.txt
find a | sort; find a -type d | sort; find a -name '*.txt' -size -2 | sort; find a -newermt 2002-01-01 -type f | wc -l
find a -empty | sort; find a -type l -printf '%p -> %l\n'; find a -perm 700 -type f; find a -maxdepth 1 -mindepth 1 | wc -l
find a -name '*.log' -exec cat {} + | sort; find a -name '*.log' -exec sh -c 'echo "got $1"' _ {} \; | sort
find a -regex '.*/[fg][12]\..*' | sort; find a \( -name '*.txt' -o -name '*.log' \) ! -path '*/b/*' | sort
find a -path a/b -prune -o -type f -print | sort; find a -links 1 -type f | wc -l; find -L a -type f -name link
find a -type f -print0 | xargs -0 -n 2 echo | wc -l; find a -name '*.txt' | sort | xargs -I{} basename {} .txt
seq 1 10 | xargs -n 3; seq 1 4 | xargs -P 4 -n 1 sh -c 'exit 0'; echo "xargs $?"; echo x | xargs false; echo "xargs $?"
seq 1 5000 | xargs echo | wc -w; printf 'a b\n' | xargs -d '\n' printf '[%s]\n'; xargs -a a/f1.txt echo from
find a -name 'f*' -delete; find a -type f | sort; find absent 2> /dev/null; echo "find $?"
