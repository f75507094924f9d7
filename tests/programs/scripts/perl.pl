# Perl: data, regular expressions, files, processes, pipes, sockets, signals, sorting.
use strict;
use warnings;
use Fcntl qw(:flock SEEK_SET);
use File::Find;
use File::Temp qw(tempfile tempdir);
use IO::Socket::UNIX;
use List::Util qw(sum first);
use POSIX qw(:sys_wait_h floor strftime);
use Socket;
$| = 1;

my %count;
$count{$_}++ for qw(a b a c b a);
print join(' ', map { "$_=$count{$_}" } sort keys %count), "\n";
(my $text = 'The quick brown fox') =~ s/(\w+)/\u\L$1/g;
print "$text ", scalar(() = $text =~ /o/g), "\n";
print sum(map { $_ ** 2 } 1 .. 10), ' ', first { $_ > 3 } (1, 5, 2); print "\n";

open my $out, '>', 'file' or die; print $out "line $_\n" for 1 .. 1000; close $out;
open my $in, '+<', 'file' or die; my @lines = <$in>; print scalar(@lines), ' ', $lines[-1];
flock $in, LOCK_EX or die; seek $in, 5, SEEK_SET; read $in, my $got, 3; print "[$got]\n"; truncate $in, 10; close $in;
print -s 'file', ' ', (-d '.' ? 'directory' : 'none'), "\n";
mkdir 'd'; symlink 'd', 'l'; rename 'file', 'd/file'; my @found; find(sub { push @found, $File::Find::name }, '.'); print join(' ', sort @found), "\n";
my ($fh, $name) = tempfile(); print $fh 'x'; close $fh; print -e $name ? "temporary\n" : "none\n"; unlink $name; my $dir = tempdir(CLEANUP => 1);

my $pid = fork; if ($pid == 0) { exit 7 } waitpid $pid, 0; print 'child ', $? >> 8, "\n";
print `echo backticks`; system 'sh -c "exit 3"'; print 'system ', $? >> 8, "\n";
open my $pipe, '-|', 'printf "3\n1\n2\n" | sort' or die; print map { "piped $_" } <$pipe>; close $pipe;
open my $to, '|-', 'tr a-z A-Z' or die; print $to "shouted\n"; close $to;
pipe my $r, my $w; if (!fork) { close $r; syswrite $w, 'from the child'; exit 0 } close $w; sysread $r, my $read, 100; print "$read\n"; wait;
local $SIG{USR1} = sub { print "signal $_[0]\n" }; kill 'USR1', $$;
my $alarmed = eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 1; select undef, undef, undef, 10; 1 }; print $@;
socketpair my $left, my $right, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die; syswrite $left, 'socket'; sysread $right, my $s, 10; print "$s\n";
print strftime('%Y-%m-%d', gmtime 0), ' ', floor(3.7), "\n"; printf "%05.2f %s %b\n", 3.14159, 'x' x 3, 10;
my @sorted = sort { $b <=> $a } map { ($_ * 7919) % 1000 } 1 .. 2000; print "@sorted[0 .. 4]\n";
print "env $ENV{LC_ALL}\n"; local $0 = 'renamed'; eval { die { code => 42 } }; print $@->{code}, "\n"; print sprintf('%s', join ',', unpack 'nC', pack 'nC', 258, 3), "\n";
exit 4;
