# git: init, add, commit, log, diff, branch, merge, local clone.
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=C GIT_COMMITTER_EMAIL=c@example.com
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=$PWD
set -e
git init -q -b main repo; cd repo
echo one > file; mkdir dir; echo two > dir/other; ln -s file link; chmod +x file
git status --short; git add .; git status --short; git commit -q -m 'first'
echo more >> file; git diff; git commit -q -a -m 'second'; git log --format='%H %s'; git show --stat --format=%s
git checkout -q -b topic; echo topic > topic; git add topic; git commit -q -m 'topic'; git checkout -q main; echo main > main; git add main; git commit -q -m 'main'
git merge -q --no-edit topic; git log --graph --format=%s; git ls-files -s; git tag v1; git describe --tags; git branch --list
git rm -q dir/other; git mv main renamed; git status --short; git stash -q; git status --short; git stash pop -q; git reset -q --hard; git fsck 2>/dev/null; git gc -q; git count-objects | cut -d, -f1
cd ..; git clone -q repo copy; cd copy; git log --oneline | wc -l; git remote; cat file; echo from-copy > c; git add c; git commit -q -m 'in copy'; git push -q origin main:pushed; git -C ../repo log -1 --format=%s pushed
git clone -q --bare ../repo ../bare.git; git -C ../bare.git rev-parse main; git archive main | tar t | sort; git grep -n one; git blame -s file; git rev-list --count HEAD; git cat-file -p HEAD^{tree}; git checkout -q v1 2>/dev/null; git bisect start > /dev/null; git bisect reset 2> /dev/null; git config user.x y; git config user.x; git show absent 2> /dev/null || echo "git $?"
