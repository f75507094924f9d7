/* User and group ids, supplementary groups, capabilities: as root and, from there, as anybody. */
#include "guest.h"
#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void show_ids(const char *label)
{
    uid_t r, e, s;
    gid_t rg, eg, sg;
    MUST(getresuid(&r, &e, &s));
    MUST(getresgid(&rg, &eg, &sg));
    say("%s: uid %u %u %u gid %u %u %u", label, r, e, s, rg, eg, sg);
}

static uint64_t effective(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    MUST(syscall(SYS_capget, &header, data));
    return data[0].effective | (uint64_t)data[1].effective << 32;
}

static void ordinary(void)
{
    become_ordinary();
    uid_t uid = getuid();
    gid_t gid = getgid();
    SHOW(effective());
    CHECK(setuid(0));
    CHECK(setuid(uid));
    CHECK(seteuid(0));
    CHECK(setresuid(uid, uid, 0));
    CHECK(setreuid(uid, uid));
    CHECK(setgid(0));
    CHECK(setgid(gid));
    CHECK(setresgid(-1, -1, -1));
    gid_t groups[2] = {1, 2};
    CHECK(setgroups(2, groups));
    CHECK(setresuid(-1, -1, -1));
    SHOW((uid_t)setfsuid((uid_t)-1) == uid);
    CHECK(syscall(SYS_setuid, -1));
    CHECK(sethostname("x", 1));
    CHECK(kill(getppid(), 0) == 0 || errno == EPERM);
    CHECK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
    CHECK(prctl(PR_CAPBSET_READ, 1000));
}

static void change_ids(void)
{
    show_ids("root");
    CHECK(setresuid(1000, 0, 2000));
    show_ids("setresuid");
    CHECK(seteuid(1000));
    show_ids("seteuid");
    SHOW(effective());
    CHECK(setuid(2000));
    show_ids("setuid to the saved one");
    CHECK(setuid(3000));
    CHECK(seteuid(2000));
    CHECK(setreuid(2000, 1000));
    show_ids("setreuid");
    CHECK(setresuid(0, 0, 0));
}

static void change_for_good(void)
{
    CHECK(setregid(100, 200));
    CHECK(setgid(300));
    show_ids("gids");
    gid_t groups[3] = {7, 8, 9}, got[3];
    CHECK(setgroups(3, groups));
    CHECK(getgroups(0, NULL));
    CHECK(getgroups(2, got));
    CHECK(getgroups(3, got));
    say("%u %u %u", got[0], got[1], got[2]);
    CHECK(getgroups(-1, got));
    CHECK(syscall(SYS_setgroups, 70000, groups));
    CHECK(syscall(SYS_setgroups, 1, 8));
    CHECK(syscall(SYS_getgroups, 3, 8));
    SHOW(setfsuid(1234));
    SHOW(setfsuid((uid_t)-1));
    CHECK(setuid(1234));
    show_ids("setuid");
    SHOW(effective());
    CHECK(setuid(0));
}

static void keep_capabilities(void)
{
    CHECK(prctl(PR_GET_KEEPCAPS));
    CHECK(prctl(PR_SET_KEEPCAPS, 1));
    CHECK(setresuid(1000, 1000, 1000));
    SHOW(effective());
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    MUST(syscall(SYS_capget, &header, data));
    SHOW((data[0].permitted & 1 << CAP_SETUID) != 0);
    data[0].effective = 1 << CAP_SETUID;
    data[0].permitted &= 1 << CAP_SETUID | 1 << CAP_SETGID;
    data[1].permitted = 0;
    CHECK(syscall(SYS_capset, &header, data));
    CHECK(setuid(0));
    show_ids("back");
    data[0].permitted |= 1 << CAP_CHOWN;
    CHECK(syscall(SYS_capset, &header, data));
}

static void access_follows(void)
{
    MUST(chmod(".", 0777));
    put_file("secret", "x");
    MUST(chmod("secret", 0600));
    CHECK(seteuid(1000));
    CHECK(open("secret", O_RDONLY));
    CHECK(seteuid(0));
    SHOW(open("secret", O_RDONLY) >= 0);
    SHOW(setfsuid(1000));
    CHECK(open("secret", O_RDONLY));
    CHECK(setgid(500));
    struct stat st;
    setfsuid(4321);
    put_file("owned", "x");
    MUST(stat("owned", &st));
    say("owner %u", st.st_uid);
}

static void capability_errors(void)
{
    struct __user_cap_header_struct header = {0, 0};
    struct __user_cap_data_struct data[2];
    CHECK(syscall(SYS_capget, &header, NULL));
    SHOW(header.version == _LINUX_CAPABILITY_VERSION_3);
    header.version = 0;
    CHECK(syscall(SYS_capget, &header, data));
    CHECK(syscall(SYS_capget, 8, data));
    header = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 1 << 29};
    CHECK(syscall(SYS_capget, &header, data));
    header.pid = -1;
    CHECK(syscall(SYS_capget, &header, data));
    header.pid = 1 << 29;
    CHECK(syscall(SYS_capset, &header, data));
}

int main(void)
{
    SECTION("relations");
    SHOW(getuid() == geteuid());
    SHOW(getgid() == getegid());
    SHOW(getgroups(0, NULL) >= 0);
    CHECK(syscall(SYS_getresuid, 8, 8, 8));
    SECTION("ordinary");
    in_child("ordinary", ordinary);
    SECTION("capability calls");
    in_child("errors", capability_errors);
    if (geteuid() == 0) {
        SECTION("root");
        in_child("change", change_ids);
        in_child("for good", change_for_good);
        in_child("keep capabilities", keep_capabilities);
        in_child("access", access_follows);
    }
    return 0;
}
