/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* By names, so that those an architecture does not have are left out. */
static const char *const allowed[] = {
	/* files */
	"access", "chmod", "chown", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "faccessat",
	"faccessat2", "fadvise64", "fallocate", "fchmod", "fchmodat", "fchown", "fchownat", "fcntl", "fdatasync",
	"flock", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "lseek", "lstat", "mkdir",
	"mkdirat", "newfstatat", "open", "openat", "pread64", "preadv", "pwrite64", "pwritev", "read", "readahead",
	"readlink", "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "stat", "statfs", "statx",
	"sync_file_range", "umask", "unlink", "unlinkat", "utimensat", "write", "writev",
	/* memory */
	"brk", "madvise", "mincore", "mlock", "mlock2", "mremap", "msync", "munlock", "munmap",
	/* threads, signals */
	"arch_prctl", "exit", "exit_group", "futex", "get_robust_list", "getcpu", "gettid", "membarrier",
	"restart_syscall", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn",
	"rt_sigsuspend", "rt_sigtimedwait", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
	"sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill",
	/* network, waiting */
	"accept", "accept4", "bind", "connect", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
	"epoll_wait", "eventfd2", "getpeername", "getsockname", "getsockopt", "listen", "pipe", "pipe2", "poll",
	"ppoll", "pselect6", "recvfrom", "recvmmsg", "recvmsg", "select", "sendfile", "sendmmsg", "sendmsg",
	"sendto", "setsockopt", "shutdown", "signalfd4", "socketpair", "timerfd_create", "timerfd_gettime",
	"timerfd_settime",
	/* time, chance, self */
	"clock_getres", "clock_gettime", "clock_nanosleep", "getegid", "geteuid", "getgid", "getgroups", "getpid",
	"getppid", "getrandom", "getresgid", "getresuid", "getrlimit", "getrusage", "gettimeofday", "getuid",
	"nanosleep", "prlimit64", "sysinfo", "time", "times", "uname",
};

static const char *const deadly[] = {
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "bpf", "kexec_load",
	"kexec_file_load", "init_module", "finit_module", "delete_module", "mount", "umount2", "pivot_root",
	"chroot", "setns", "unshare", "keyctl", "add_key", "request_key", "perf_event_open", "userfaultfd",
	"io_uring_setup", "open_by_handle_at", "reboot", "swapon", "swapoff", "iopl", "ioperm", "settimeofday",
	"clock_settime", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups",
	"personality",
};

/* Allowed when the masked argument is the value. */
typedef struct narrowed {
	const char *call;
	unsigned argument;
	uint64_t mask, value;
} narrowed;

#define WHOLE UINT64_MAX
#define INT_ARGUMENT ((uint64_t)UINT32_MAX)
#define WRITE_OR_EXEC ((uint64_t)(PROT_WRITE | PROT_EXEC))
#define NEW_NAMESPACE                                                                                           \
	((uint64_t)(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
		    CLONE_NEWNET))

static const narrowed narrow[] = {
	/* Threads alone. The flags of clone3 cannot be seen here, so it is not on
	 * any list, and C libraries take clone instead. */
	{"clone", 0, CLONE_THREAD | NEW_NAMESPACE, CLONE_THREAD},
	/* No memory that is written and run. */
	{"mmap", 2, WRITE_OR_EXEC, 0},
	{"mmap", 2, WRITE_OR_EXEC, PROT_WRITE},
	{"mmap", 2, WRITE_OR_EXEC, PROT_EXEC},
	{"mprotect", 2, PROT_EXEC, 0},
	{"socket", 0, INT_ARGUMENT, AF_UNIX},
	{"socket", 0, INT_ARGUMENT, AF_INET},
	{"socket", 0, INT_ARGUMENT, AF_INET6},
	{"socket", 0, INT_ARGUMENT, AF_NETLINK}, /* the resolver looks for addresses of its own */
	{"ioctl", 1, INT_ARGUMENT, FIONREAD},
	{"ioctl", 1, INT_ARGUMENT, FIONBIO},
	{"ioctl", 1, INT_ARGUMENT, 0x5401 /* TCGETS: is it a terminal */},
	{"prctl", 0, INT_ARGUMENT, PR_SET_NAME},
	{"prctl", 0, INT_ARGUMENT, PR_GET_NAME},
	{"prctl", 0, INT_ARGUMENT, 0x53564d41 /* PR_SET_VMA: names of allocations */},
};

static int
add_lists(scmp_filter_ctx ctx)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < COUNT(allowed); i++) {
		int nr = seccomp_syscall_resolve_name(allowed[i]);
		if (nr != __NR_SCMP_ERROR)
			rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
	}
	for (size_t i = 0; rc == 0 && i < COUNT(deadly); i++) {
		int nr = seccomp_syscall_resolve_name(deadly[i]);
		if (nr != __NR_SCMP_ERROR)
			rc = seccomp_rule_add(ctx, SCMP_ACT_KILL_PROCESS, nr, 0);
	}
	for (size_t i = 0; rc == 0 && i < COUNT(narrow); i++) {
		const narrowed *n = &narrow[i];
		rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, seccomp_syscall_resolve_name(n->call), 1,
				      SCMP_CMP(n->argument, SCMP_CMP_MASKED_EQ, n->mask, n->value));
	}
	return rc;
}

static qg_err
filter_calls(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	if (ctx == NULL)
		return QG_E_NOMEM;
	int rc = add_lists(ctx);
	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (rc == 0)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	errno = -rc;
	return rc == 0 ? QG_OK : rc == -EINVAL ? QG_E_UNSUPPORTED : QG_E_IO;
}

/* Who runs it as root still has a process that may little: ports below 1024,
 * locked memory, and giving a socket to a group. */
static qg_err
drop_capabilities(void)
{
	static const unsigned kept[] = {CAP_NET_BIND_SERVICE, CAP_IPC_LOCK, CAP_CHOWN};
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct set[_LINUX_CAPABILITY_U32S_3];
	uint32_t keep = 0;
	for (size_t i = 0; i < COUNT(kept); i++)
		keep |= UINT32_C(1) << kept[i];
	if (syscall(SYS_capget, &head, set) != 0)
		return QG_E_IO;
	/* Only who has CAP_SETPCAP may, and only who may could get them back. */
	for (unsigned long c = 0; c <= CAP_LAST_CAP; c++)
		if (c > 31 || (keep >> c & 1) == 0)
			(void)prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
	for (size_t i = 0; i < COUNT(set); i++) {
		set[i].permitted &= i == 0 ? keep : 0;
		set[i].effective = set[i].permitted;
		set[i].inheritable = 0;
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL)
		return QG_E_IO;
	return syscall(SYS_capset, &head, set) == 0 ? QG_OK : QG_E_IO;
}

qg_err
qg_sandbox_enter(bool filter)
{
	struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return QG_E_IO;
	qg_err err = drop_capabilities();
	if (err != QG_OK || !filter)
		return err;
	return filter_calls();
}
