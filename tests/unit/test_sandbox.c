/* SPDX-License-Identifier: Apache-2.0 */
/* What a process in the sandbox can and cannot do any more: each case runs in
 * a child of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../src/app/sandbox.h"

#define GOOD 0
#define NOT_ENTERED 99

/* The status of a child that enters the sandbox and then runs `act`. */
static int
in_sandbox(int (*act)(void))
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(qg_sandbox_enter(true) != QG_OK ? NOT_ENTERED : act());
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void
expect_good(int (*act)(void))
{
	int status = in_sandbox(act);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), GOOD);
}

/* --- what still works ------------------------------------------------------------- */

static void *
thread_main(void *arg)
{
	*(int *)arg = 7;
	return NULL;
}

static int
work(void)
{
	char name[] = "/tmp/qg-sandbox-XXXXXX";
	pthread_t t;
	int seen = 0;
	int fd = mkstemp(name);
	if (fd < 0 || write(fd, "x", 1) != 1 || fsync(fd) != 0 || unlink(name) != 0 || close(fd) != 0)
		return 1;
	if (pthread_create(&t, NULL, thread_main, &seen) != 0 || pthread_join(t, NULL) != 0 || seen != 7)
		return 2;
	int s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) != 0 || listen(s, 1) != 0)
		return 3;
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) != 0)
		return 4;
	return GOOD;
}

static void
a_gateway_can_work(void **state)
{
	(void)state;
	expect_good(work);
}

/* --- what does not exist ----------------------------------------------------------- */

static int
refused_fork(void)
{
	pid_t child = fork();
	if (child == 0)
		_exit(0);
	return child < 0 && errno == ENOSYS ? GOOD : 1;
}

static int
refused_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED)
		return 1;
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p != MAP_FAILED && mprotect(p, 4096, PROT_READ | PROT_EXEC) != 0 ? GOOD : 2;
}

static int
refused_sockets(void)
{
	static const int families[] = {AF_PACKET, 38 /* AF_ALG */, 40 /* AF_VSOCK */, AF_BLUETOOTH};
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		if (socket(families[i], SOCK_RAW, 0) >= 0 || errno != ENOSYS)
			return 1 + (int)i;
	return GOOD;
}

static int
refused_others(void)
{
	if (kill(getppid(), 0) == 0 || errno != ENOSYS)
		return 1;
	if (syscall(SYS_clone3, NULL, 0) == 0 || errno != ENOSYS)
		return 2;
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0 || errno != ENOSYS)
		return 3;
	if (memfd_create("x", 0) >= 0 || errno != ENOSYS)
		return 4;
	if (link("/etc/hostname", "/tmp/qg-sandbox-link") == 0 || errno != ENOSYS)
		return 5;
	return GOOD;
}

static void
other_calls_do_not_exist(void **state)
{
	(void)state;
	expect_good(refused_fork);
	expect_good(refused_code);
	expect_good(refused_sockets);
	expect_good(refused_others);
}

/* --- what ends the process ----------------------------------------------------------- */

static int
run_program(void)
{
	char *const argv[] = {(char[]){"true"}, NULL};
	execv("/bin/true", argv);
	return 1;
}

static int
read_others(void)
{
	return ptrace(PTRACE_ATTACH, getppid(), NULL, NULL) == 0 ? 1 : 2;
}

static int
new_namespace(void)
{
	return unshare(CLONE_NEWUSER) == 0 ? 1 : 2;
}

static int
other_user(void)
{
	return setuid(0) == 0 ? 1 : 2;
}

static int
read_memory(void)
{
	return (int)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0) == 0 ? 1 : 2;
}

static int
other_root(void)
{
	return chroot("/tmp") == 0 ? 1 : 2;
}

static int
set_clock(void)
{
	struct timespec now;
	return clock_gettime(CLOCK_REALTIME, &now) != 0 || clock_settime(CLOCK_REALTIME, &now) == 0 ? 1 : 2;
}

static void
attacks_end_the_process(void **state)
{
	(void)state;
	static int (*const attacks[])(void) = {run_program, read_others, new_namespace, other_user,
					       read_memory, other_root,  set_clock};
	for (size_t i = 0; i < sizeof attacks / sizeof attacks[0]; i++) {
		int status = in_sandbox(attacks[i]);
		print_message("attack %zu\n", i);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	}
}

/* --- capabilities, core dumps ----------------------------------------------------------- */

static unsigned long long
number_in_status(const char *name)
{
	char line[256];
	unsigned long long value = ~0ULL;
	FILE *f = fopen("/proc/self/status", "r");
	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			value = strtoull(line + strlen(name), NULL, 16);
	if (f != NULL)
		fclose(f);
	return value;
}

static int
little_is_left(void)
{
	const unsigned long long kept = 1ULL << 0 | 1ULL << 10 | 1ULL << 14;
	struct rlimit core;
	if ((number_in_status("CapEff:\t") & ~kept) != 0 || (number_in_status("CapPrm:\t") & ~kept) != 0)
		return 1;
	if (number_in_status("NoNewPrivs:\t") != 1 || number_in_status("Seccomp:\t") != 2)
		return 2;
	if (getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max != 0)
		return 3;
	return GOOD;
}

static void
little_is_left_of_root(void **state)
{
	(void)state;
	expect_good(little_is_left);
}

static int
nothing(void)
{
	return syscall(SYS_getpid) > 0 && memfd_create("x", 0) >= 0 ? GOOD : 1;
}

/* Without the filter the rest is given up all the same. */
static void
without_the_filter(void **state)
{
	(void)state;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(qg_sandbox_enter(false) == QG_OK && number_in_status("NoNewPrivs:\t") == 1 ? nothing() : 1);
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_gateway_can_work),      cmocka_unit_test(other_calls_do_not_exist),
		cmocka_unit_test(attacks_end_the_process), cmocka_unit_test(little_is_left_of_root),
		cmocka_unit_test(without_the_filter),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
