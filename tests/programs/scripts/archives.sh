# tar and gzip.
mkdir -p tree/sub; echo one > tree/one; seq 1 20000 > tree/sub/numbers; ln -s one tree/link; ln tree/one tree/hard; chmod 640 tree/sub/numbers; touch -d '2010-10-10 10:10:10 UTC' tree/one tree/sub/numbers; : > tree/empty
tar cf tree.tar tree; tar tf tree.tar | sort; tar czf tree.tar.gz tree; tar tzf tree.tar.gz | wc -l
mkdir out; tar xzf tree.tar.gz -C out; diff -r tree out/tree && echo same; stat -c '%a %Y' out/tree/sub/numbers; readlink out/tree/link; stat -c %h out/tree/one
tar cf - tree | (mkdir piped; cd piped; tar xf -); cmp tree/sub/numbers piped/tree/sub/numbers && echo piped
tar xOf tree.tar tree/sub/numbers | md5sum; tar --delete -f tree.tar tree/empty; tar tf tree.tar | wc -l; echo new > new; tar rf tree.tar new; tar tf tree.tar | tail -n 1; tar uf tree.tar new
tar cf some.tar --exclude='*.x' --transform 's,^tree,renamed,' tree; tar tf some.tar | sort | head -n 3; tar xf absent.tar 2> /dev/null; echo "tar $?"
gzip -k tree/sub/numbers; gzip -l tree/sub/numbers.gz | tail -n 1 | awk '{ print $2 }'; gzip -t tree/sub/numbers.gz && echo intact; zcat tree/sub/numbers.gz | tail -n 1; rm tree/sub/numbers; gunzip tree/sub/numbers.gz; wc -l < tree/sub/numbers; echo corrupt > bad.gz; gunzip bad.gz 2> /dev/null; echo "gunzip $?"; seq 1 100 | gzip -9 | gzip -dc | md5sum; gzip < tree/sub/numbers | zgrep -c 7
