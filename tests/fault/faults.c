/* SPDX-License-Identifier: Apache-2.0 */
/* Stands between a program and what it calls, by LD_PRELOAD: counts the calls
 * by call site, and lets the one fail that the test has chosen (faults.h).
 * Only a test loads it. */
#include "faults.h"

#include <curl/curl.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <jansson.h>
#include <link.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#undef curl_easy_setopt
#undef curl_multi_setopt
#undef curl_easy_getinfo

/* In the order of KINDS in control.py. */
enum kind {
	K_malloc,
	K_calloc,
	K_realloc,
	K_reallocarray,
	K_strdup,
	K_strndup,
	K_vasprintf,
	K_open_memstream,
	K_sodium_malloc,
	K_open,
	K_read,
	K_pread,
	K_write,
	K_pwrite,
	K_fsync,
	K_fdatasync,
	K_ftruncate,
	K_rename,
	K_flock,
	K_fcntl,
	K_unlink,
	K_statvfs,
	K_opendir,
	K_socket,
	K_accept4,
	K_bind,
	K_listen,
	K_connect,
	K_setsockopt,
	K_send,
	K_sendmsg,
	K_recv,
	K_epoll_create1,
	K_epoll_ctl,
	K_epoll_wait,
	K_poll,
	K_eventfd,
	K_getsockname,
	K_getaddrinfo,
	K_pthread_create,
	K_clock_gettime, /* it never fails: the clock is stepped or stands still from this call on */
	K_sqlite3_open_v2,
	K_sqlite3_exec,
	K_sqlite3_prepare_v2,
	K_sqlite3_prepare_v3,
	K_sqlite3_bind_blob64,
	K_sqlite3_bind_int64,
	K_sqlite3_bind_text,
	K_sqlite3_bind_null,
	K_sqlite3_step,
	K_gnutls_init,
	K_gnutls_handshake,
	K_gnutls_record_send,
	K_gnutls_record_recv,
	K_gnutls_credentials_set,
	K_gnutls_priority_set,
	K_gnutls_certificate_verify_peers,
	K_gnutls_certificate_allocate_credentials,
	K_gnutls_session_ticket_key_generate,
	K_gnutls_session_ticket_enable_server,
	K_gnutls_priority_init,
	K_gnutls_certificate_set_x509_key,
	K_gnutls_certificate_set_x509_trust_mem,
	K_gnutls_certificate_set_x509_crl_mem,
	K_gnutls_x509_privkey_init,
	K_gnutls_x509_privkey_import2,
	K_gnutls_x509_crl_list_import2,
	K_gnutls_x509_crt_list_import2,
	K_gnutls_x509_crt_init,
	K_gnutls_x509_crt_import,
	K_gnutls_x509_crt_get_subject_alt_name,
	K_gnutls_x509_crt_get_dn_by_oid,
	K_gnutls_x509_crt_get_fingerprint,
	K_curl_easy_init,
	K_curl_multi_init,
	K_curl_easy_setopt,
	K_curl_multi_setopt,
	K_curl_multi_add_handle,
	K_curl_multi_perform,
	K_curl_multi_poll,
	K_curl_slist_append,
	K_curl_result, /* what curl_multi_info_read says of a transfer that went well */
	K_MHD_create_response_from_buffer,
	K_MHD_create_response_from_buffer_with_free_callback_cls,
	K_MHD_add_response_header,
	K_MHD_queue_response,
	K_json_object,
	K_json_array,
	K_json_string,
	K_json_stringn,
	K_json_integer,
	K_json_real,
	K_json_object_set_new,
	K_json_array_append_new,
	K_json_dumps,
	K_json_deep_copy,
};

enum { OBJECT_OWN = 1, OBJECT_OTHER = 255 };

#define WHERE() ((uintptr_t)__builtin_return_address(0))
#define ERROR() ((int)atomic_load(&control->error))

static qg_fault_control *control;

/* --- who calls ------------------------------------------------------------------ */

/* The text of each object, in the order of loading; the program itself is the first. */
static struct text {
	uintptr_t begin, end, base;
	const char *name;
} texts[OBJECT_OTHER];
static unsigned n_texts;

static int
note_object(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum && n_texts < OBJECT_OTHER - 1; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		if (p->p_type == PT_LOAD && (p->p_flags & PF_X) != 0) {
			const uintptr_t begin = info->dlpi_addr + p->p_vaddr;
			texts[n_texts++] = (struct text){begin, begin + p->p_memsz, info->dlpi_addr,
							 info->dlpi_name};
			break;
		}
	}
	return 0;
}

static uint64_t
place(enum kind kind, uintptr_t from)
{
	unsigned object = OBJECT_OTHER;
	uint64_t offset = 1;
	for (unsigned i = 0; i < n_texts; i++)
		if (from >= texts[i].begin && from < texts[i].end) {
			object = i + 1;
			offset = from - texts[i].base;
			break;
		}
	return (uint64_t)kind << 56 | (uint64_t)object << 48 | offset;
}

/* --- where the program was when it broke --------------------------------------------- */

/* The calls that led there, to where its log goes. */
static void
tell_where(int signal)
{
	void *calls[64];
	const int n = backtrace(calls, 64);
	backtrace_symbols_fd(calls, n, STDERR_FILENO);
	raise(signal); /* its usual end, once this returns */
}

/* Threads that hear no signals hear these: else the end comes without a word. */
int
pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	int (*next)(int, const sigset_t *, sigset_t *);
	sigset_t without;
	*(void **)&next = dlsym(RTLD_NEXT, "pthread_sigmask");
	if (set == NULL || how == SIG_UNBLOCK)
		return next(how, set, old);
	without = *set;
	sigdelset(&without, SIGSEGV);
	sigdelset(&without, SIGBUS);
	return next(how, &without, old);
}

static void
watch_end(void)
{
	const struct sigaction how = {.sa_handler = tell_where, .sa_flags = (int)SA_RESETHAND};
	void *first[1];
	(void)backtrace(first, 1); /* loads what it needs */
	sigaction(SIGSEGV, &how, NULL);
	sigaction(SIGABRT, &how, NULL);
	sigaction(SIGBUS, &how, NULL);
}

__attribute__((constructor)) static void
begin(void)
{
	const char *name = getenv("QG_FAULTS");
	if (name == NULL)
		return;
	dl_iterate_phdr(note_object, NULL);
	const int fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	syscall(SYS_close, fd);
	if (p == MAP_FAILED || ((qg_fault_control *)p)->magic != QG_FAULT_MAGIC)
		return;
	qg_fault_control *c = p;
	for (unsigned i = 0; i < n_texts; i++) {
		const char *base = strrchr(texts[i].name, '/');
		snprintf(c->object_name[i + 1], sizeof c->object_name[0], "%s", base != NULL ? base + 1 : "");
	}
	watch_end();
	control = c;
}

/* --- whether this call fails -------------------------------------------------------- */

static void
count(uint64_t where)
{
	uint64_t at = (where ^ where >> 13 ^ where >> 29 ^ where >> 51) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
	for (unsigned tries = 0; tries < QG_FAULT_SITES; tries++) {
		qg_fault_site *s = &control->sites[(at + tries) % QG_FAULT_SITES];
		uint64_t seen = atomic_load_explicit(&s->where, memory_order_relaxed);
		if (seen == 0 && atomic_compare_exchange_strong(&s->where, &seen, where))
			seen = where;
		if (seen == where) {
			atomic_fetch_add_explicit(&s->calls, 1, memory_order_relaxed);
			return;
		}
	}
}

static bool
is_chosen(enum kind kind, uint64_t where)
{
	const uint32_t whose = atomic_load(&control->object);
	const bool own = (where >> 48 & 0xff) == OBJECT_OWN;
	const uint64_t site = atomic_load(&control->site);
	return atomic_load(&control->armed) == (uint32_t)kind + 1 && (whose == 0 || (whose == 1) == own) &&
	       (site == 0 || site == where);
}

static bool
fails(enum kind kind, uintptr_t from)
{
	if (control == NULL)
		return false;
	const uint64_t where = place(kind, from);
	count(where);
	if (!is_chosen(kind, where) || atomic_fetch_sub(&control->skip, 1) > 0 ||
	    atomic_fetch_sub(&control->times, 1) <= 0)
		return false;
	atomic_store(&control->fired_at, where);
	atomic_fetch_add(&control->fired, 1);
	return true;
}

static void *
next_of(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);
	if (f == NULL)
		abort();
	return f;
}

/* The function of that name in the library that has it. */
#define NEXT(name)                                                    \
	({                                                            \
		static __typeof__(&name) _Atomic next_;               \
		__typeof__(&name) f_ = atomic_load(&next_);           \
		if (f_ == NULL) {                                     \
			f_ = (__typeof__(&name))next_of(#name);       \
			atomic_store(&next_, f_);                     \
		}                                                     \
		f_;                                                   \
	})

/* A call that fails returns `bad` and sets errno. */
#define SYSTEM(type, name, bad, parameters, arguments)        \
	type name parameters                                  \
	{                                                     \
		if (fails(K_##name, WHERE())) {               \
			errno = ERROR();                      \
			return bad;                           \
		}                                             \
		return NEXT(name) arguments;                  \
	}

/* One that fails returns the error itself. */
#define LIBRARY(type, name, parameters, arguments)            \
	type name parameters                                  \
	{                                                     \
		if (fails(K_##name, WHERE()))                 \
			return (type)ERROR();                 \
		return NEXT(name) arguments;                  \
	}

/* --- memory: dlsym allocates, so these go to the C library by its own names ---------- */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

#define MEMORY(name, parameters, real)                        \
	void *name parameters                                 \
	{                                                     \
		if (fails(K_##name, WHERE())) {               \
			errno = ENOMEM;                       \
			return NULL;                          \
		}                                             \
		return real;                                  \
	}

MEMORY(malloc, (size_t n), __libc_malloc(n))
MEMORY(calloc, (size_t n, size_t size), __libc_calloc(n, size))
MEMORY(realloc, (void *p, size_t n), __libc_realloc(p, n))

void *
reallocarray(void *p, size_t n, size_t size)
{
	size_t whole;
	if (fails(K_reallocarray, WHERE()) || __builtin_mul_overflow(n, size, &whole)) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_realloc(p, whole);
}

char *
strdup(const char *s)
{
	const size_t n = strlen(s) + 1;
	char *copy = fails(K_strdup, WHERE()) ? NULL : __libc_malloc(n);
	if (copy == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	return memcpy(copy, s, n);
}

char *
strndup(const char *s, size_t most)
{
	const size_t n = strnlen(s, most);
	char *copy = fails(K_strndup, WHERE()) ? NULL : __libc_malloc(n + 1);
	if (copy == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	copy[n] = '\0';
	return memcpy(copy, s, n);
}

/* What asprintf is in a program built with _FORTIFY_SOURCE. */
int __asprintf_chk(char **out, int flag, const char *format, ...);
int
__asprintf_chk(char **out, int flag, const char *format, ...)
{
	(void)flag;
	if (fails(K_vasprintf, WHERE())) {
		errno = ENOMEM;
		return -1;
	}
	va_list more;
	va_start(more, format);
	const int n = vasprintf(out, format, more);
	va_end(more);
	return n;
}

SYSTEM(FILE *, open_memstream, NULL, (char **p, size_t *n), (p, n))

void *sodium_malloc(size_t n);
SYSTEM(void *, sodium_malloc, NULL, (size_t n), (n))

/* --- files ------------------------------------------------------------------------- */

static int
open_at(int folder, const char *path, int flags, mode_t mode, uintptr_t from)
{
	if (fails(K_open, from)) {
		errno = ERROR();
		return -1;
	}
	return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static mode_t
mode_of(int flags, va_list more)
{
	return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
}

#define OPEN(name, parameters, folder)                                        \
	int name parameters                                                   \
	{                                                                     \
		va_list more;                                                 \
		va_start(more, flags);                                        \
		const mode_t mode = mode_of(flags, more);                     \
		va_end(more);                                                 \
		return open_at(folder, path, flags, mode, WHERE());           \
	}
#define OPEN_2(name)                                                          \
	int name(const char *path, int flags);                                \
	int name(const char *path, int flags)                                 \
	{                                                                     \
		return open_at(AT_FDCWD, path, flags, 0, WHERE());            \
	}

OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), folder)
OPEN_2(__open_2)
OPEN_2(__open64_2)

/* What wakes a loop (eventfd) is read and written like a file, but never fails. */
static bool
is_file(int fd)
{
	struct stat st;
	const int before = errno;
	const bool is = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	errno = before;
	return is;
}

static ssize_t
read_or_fail(int fd, void *to, size_t n, uintptr_t from)
{
	if (control != NULL && is_file(fd) && fails(K_read, from)) {
		errno = ERROR();
		return -1;
	}
	return NEXT(read)(fd, to, n);
}

ssize_t
read(int fd, void *to, size_t n)
{
	return read_or_fail(fd, to, n, WHERE());
}

ssize_t __read_chk(int fd, void *to, size_t n, size_t room);
ssize_t
__read_chk(int fd, void *to, size_t n, size_t room)
{
	if (n > room)
		abort();
	return read_or_fail(fd, to, n, WHERE());
}

static ssize_t
pread_or_fail(int fd, void *to, size_t n, off_t at, uintptr_t from)
{
	if (fails(K_pread, from)) {
		errno = ERROR();
		return -1;
	}
	return syscall(SYS_pread64, fd, to, n, at);
}

ssize_t
pread(int fd, void *to, size_t n, off_t at)
{
	return pread_or_fail(fd, to, n, at, WHERE());
}

ssize_t
pread64(int fd, void *to, size_t n, off64_t at)
{
	return pread_or_fail(fd, to, n, at, WHERE());
}

ssize_t __pread_chk(int fd, void *to, size_t n, off_t at, size_t room);
ssize_t
__pread_chk(int fd, void *to, size_t n, off_t at, size_t room)
{
	if (n > room)
		abort();
	return pread_or_fail(fd, to, n, at, WHERE());
}

enum { HALF_SAID = 1, HALF_FAILED = 2 };

ssize_t
write(int fd, const void *from, size_t n)
{
	if (control == NULL || !is_file(fd) || !fails(K_write, WHERE()))
		return NEXT(write)(fd, from, n);
	const uint32_t half = atomic_load(&control->half);
	const ssize_t done = half != 0 && n > 1 ? NEXT(write)(fd, from, n / 2) : -1;
	if (half == HALF_SAID)
		return done;
	errno = ERROR();
	return -1;
}

static ssize_t
pwrite_or_fail(int fd, const void *from, size_t n, off_t at, uintptr_t caller)
{
	if (!fails(K_pwrite, caller))
		return syscall(SYS_pwrite64, fd, from, n, at);
	const uint32_t half = atomic_load(&control->half);
	const ssize_t done = half != 0 && n > 1 ? syscall(SYS_pwrite64, fd, from, n / 2, at) : -1;
	if (half == HALF_SAID)
		return done;
	errno = ERROR();
	return -1;
}

ssize_t
pwrite(int fd, const void *from, size_t n, off_t at)
{
	return pwrite_or_fail(fd, from, n, at, WHERE());
}

ssize_t
pwrite64(int fd, const void *from, size_t n, off64_t at)
{
	return pwrite_or_fail(fd, from, n, at, WHERE());
}

#define ftruncate_or_fail(fd, size)                                           \
	if (fails(K_ftruncate, WHERE())) {                                    \
		errno = ERROR();                                              \
		return -1;                                                    \
	}                                                                     \
	return (int)syscall(SYS_ftruncate, fd, size)

int
ftruncate(int fd, off_t size)
{
	ftruncate_or_fail(fd, size);
}

int
ftruncate64(int fd, off64_t size)
{
	ftruncate_or_fail(fd, size);
}

SYSTEM(int, fsync, -1, (int fd), (fd))
SYSTEM(int, fdatasync, -1, (int fd), (fd))
SYSTEM(int, rename, -1, (const char *from, const char *to), (from, to))
SYSTEM(int, flock, -1, (int fd, int what), (fd, what))
SYSTEM(int, unlink, -1, (const char *path), (path))
SYSTEM(int, statvfs, -1, (const char *path, struct statvfs *out), (path, out))
SYSTEM(DIR *, opendir, NULL, (const char *path), (path))

static int
fcntl_or_fail(int fd, int what, long argument, uintptr_t from)
{
	if (fails(K_fcntl, from)) {
		errno = ERROR();
		return -1;
	}
	return (int)syscall(SYS_fcntl, fd, what, argument);
}

#define FCNTL(name)                                                           \
	int name(int fd, int what, ...)                                       \
	{                                                                     \
		va_list more;                                                 \
		va_start(more, what);                                         \
		const long argument = va_arg(more, long);                     \
		va_end(more);                                                 \
		return fcntl_or_fail(fd, what, argument, WHERE());            \
	}

FCNTL(fcntl)
FCNTL(fcntl64)

/* --- network, threads ----------------------------------------------------------------- */

SYSTEM(int, socket, -1, (int family, int type, int protocol), (family, type, protocol))
SYSTEM(int, accept4, -1, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
SYSTEM(int, bind, -1, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
SYSTEM(int, listen, -1, (int fd, int n), (fd, n))
SYSTEM(int, connect, -1, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
SYSTEM(int, setsockopt, -1, (int fd, int level, int name, const void *v, socklen_t n), (fd, level, name, v, n))
SYSTEM(ssize_t, send, -1, (int fd, const void *from, size_t n, int flags), (fd, from, n, flags))
SYSTEM(ssize_t, sendmsg, -1, (int fd, const struct msghdr *m, int flags), (fd, m, flags))
SYSTEM(ssize_t, recv, -1, (int fd, void *to, size_t n, int flags), (fd, to, n, flags))
SYSTEM(int, epoll_create1, -1, (int flags), (flags))
SYSTEM(int, epoll_ctl, -1, (int fd, int what, int on, struct epoll_event *e), (fd, what, on, e))
SYSTEM(int, epoll_wait, -1, (int fd, struct epoll_event *e, int n, int ms), (fd, e, n, ms))
SYSTEM(int, poll, -1, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
SYSTEM(int, eventfd, -1, (unsigned n, int flags), (n, flags))
SYSTEM(int, getsockname, -1, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))
LIBRARY(int, getaddrinfo, (const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out),
	(host, port, hints, out))
LIBRARY(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *argument),
	(t, a, run, argument))

/* --- clocks --------------------------------------------------------------------------- */

static int64_t
now_of(clockid_t which)
{
	struct timespec t = {0};
	(void)NEXT(clock_gettime)(which, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What the test has armed for this call: a step, or that no clock moves for a while. */
static void
disturb_clocks(void)
{
	if (atomic_load(&control->half) == 0) {
		atomic_store(&control->step_ns, atomic_load(&control->error) * 1000000000);
		return;
	}
	for (unsigned i = 0; i < sizeof control->frozen_ns / sizeof control->frozen_ns[0]; i++)
		atomic_store(&control->frozen_ns[i], 0);
	atomic_store(&control->thaw_ns, now_of(CLOCK_MONOTONIC) + atomic_load(&control->error) * 1000000);
	atomic_store(&control->frozen, 1);
}

static bool
is_frozen(void)
{
	if (atomic_load(&control->frozen) == 0)
		return false;
	const int64_t thaw_ns = atomic_load(&control->thaw_ns);
	if (thaw_ns != 0 && now_of(CLOCK_MONOTONIC) > thaw_ns)
		atomic_store(&control->frozen, 0);
	return true;
}

int
clock_gettime(clockid_t which, struct timespec *out)
{
	if (control == NULL || which < 0 || which > CLOCK_BOOTTIME)
		return NEXT(clock_gettime)(which, out);
	if (fails(K_clock_gettime, WHERE()))
		disturb_clocks();
	int64_t now_ns = now_of(which);
	if (which == CLOCK_REALTIME)
		now_ns += atomic_load(&control->step_ns);
	if (is_frozen()) {
		int64_t at = 0;
		atomic_fetch_add(&control->clock_reads, 1);
		if (!atomic_compare_exchange_strong(&control->frozen_ns[which], &at, now_ns))
			now_ns = at;
	}
	*out = (struct timespec){.tv_sec = now_ns / 1000000000, .tv_nsec = now_ns % 1000000000};
	return 0;
}

/* --- SQLite ------------------------------------------------------------------------------ */

LIBRARY(int, sqlite3_open_v2, (const char *name, sqlite3 **db, int flags, const char *vfs), (name, db, flags, vfs))
LIBRARY(int, sqlite3_exec,
	(sqlite3 * db, const char *sql, int (*each)(void *, int, char **, char **), void *p, char **why),
	(db, sql, each, p, why))
LIBRARY(int, sqlite3_prepare_v2, (sqlite3 * db, const char *sql, int n, sqlite3_stmt **out, const char **tail),
	(db, sql, n, out, tail))
LIBRARY(int, sqlite3_prepare_v3,
	(sqlite3 * db, const char *sql, int n, unsigned flags, sqlite3_stmt **out, const char **tail),
	(db, sql, n, flags, out, tail))
LIBRARY(int, sqlite3_bind_blob64,
	(sqlite3_stmt * s, int i, const void *p, sqlite3_uint64 n, void (*release)(void *)), (s, i, p, n, release))
LIBRARY(int, sqlite3_bind_int64, (sqlite3_stmt * s, int i, sqlite3_int64 v), (s, i, v))
LIBRARY(int, sqlite3_bind_text, (sqlite3_stmt * s, int i, const char *p, int n, void (*release)(void *)),
	(s, i, p, n, release))
LIBRARY(int, sqlite3_bind_null, (sqlite3_stmt * s, int i), (s, i))
LIBRARY(int, sqlite3_step, (sqlite3_stmt * s), (s))

/* --- GnuTLS ------------------------------------------------------------------------------- */

LIBRARY(int, gnutls_init, (gnutls_session_t *s, unsigned flags), (s, flags))
LIBRARY(int, gnutls_handshake, (gnutls_session_t s), (s))
LIBRARY(ssize_t, gnutls_record_send, (gnutls_session_t s, const void *from, size_t n), (s, from, n))
LIBRARY(ssize_t, gnutls_record_recv, (gnutls_session_t s, void *to, size_t n), (s, to, n))
LIBRARY(int, gnutls_credentials_set, (gnutls_session_t s, gnutls_credentials_type_t t, void *c), (s, t, c))
LIBRARY(int, gnutls_priority_set, (gnutls_session_t s, gnutls_priority_t p), (s, p))
LIBRARY(int, gnutls_certificate_verify_peers,
	(gnutls_session_t s, gnutls_typed_vdata_st *data, unsigned n, unsigned *status), (s, data, n, status))
LIBRARY(int, gnutls_certificate_allocate_credentials, (gnutls_certificate_credentials_t * c), (c))
LIBRARY(int, gnutls_session_ticket_key_generate, (gnutls_datum_t * key), (key))
LIBRARY(int, gnutls_session_ticket_enable_server, (gnutls_session_t s, const gnutls_datum_t *key), (s, key))
LIBRARY(int, gnutls_priority_init, (gnutls_priority_t * p, const char *text, const char **at), (p, text, at))
LIBRARY(int, gnutls_certificate_set_x509_key,
	(gnutls_certificate_credentials_t c, gnutls_x509_crt_t *list, int n, gnutls_x509_privkey_t key),
	(c, list, n, key))
LIBRARY(int, gnutls_certificate_set_x509_trust_mem,
	(gnutls_certificate_credentials_t c, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f), (c, d, f))
LIBRARY(int, gnutls_certificate_set_x509_crl_mem,
	(gnutls_certificate_credentials_t c, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f), (c, d, f))
LIBRARY(int, gnutls_x509_privkey_init, (gnutls_x509_privkey_t * k), (k))
LIBRARY(int, gnutls_x509_privkey_import2,
	(gnutls_x509_privkey_t k, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f, const char *word, unsigned flags),
	(k, d, f, word, flags))
LIBRARY(int, gnutls_x509_crl_list_import2,
	(gnutls_x509_crl_t * *list, unsigned *n, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f, unsigned flags),
	(list, n, d, f, flags))
LIBRARY(int, gnutls_x509_crt_list_import2,
	(gnutls_x509_crt_t * *list, unsigned *n, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f, unsigned flags),
	(list, n, d, f, flags))
LIBRARY(int, gnutls_x509_crt_get_subject_alt_name,
	(gnutls_x509_crt_t c, unsigned which, void *to, size_t *n, unsigned *critical), (c, which, to, n, critical))
LIBRARY(int, gnutls_x509_crt_get_dn_by_oid,
	(gnutls_x509_crt_t c, const char *oid, unsigned which, unsigned flags, void *to, size_t *n),
	(c, oid, which, flags, to, n))
LIBRARY(int, gnutls_x509_crt_get_fingerprint,
	(gnutls_x509_crt_t c, gnutls_digest_algorithm_t a, void *to, size_t *n), (c, a, to, n))
LIBRARY(int, gnutls_x509_crt_init, (gnutls_x509_crt_t * c), (c))
LIBRARY(int, gnutls_x509_crt_import, (gnutls_x509_crt_t c, const gnutls_datum_t *d, gnutls_x509_crt_fmt_t f), (c, d, f))

/* --- curl ----------------------------------------------------------------------------------- */

SYSTEM(CURL *, curl_easy_init, NULL, (void), ())
SYSTEM(CURLM *, curl_multi_init, NULL, (void), ())
SYSTEM(struct curl_slist *, curl_slist_append, NULL, (struct curl_slist * l, const char *s), (l, s))
LIBRARY(CURLMcode, curl_multi_add_handle, (CURLM * m, CURL *e), (m, e))
LIBRARY(CURLMcode, curl_multi_perform, (CURLM * m, int *running), (m, running))
LIBRARY(CURLMcode, curl_multi_poll, (CURLM * m, struct curl_waitfd *fds, unsigned n, int ms, int *ready),
	(m, fds, n, ms, ready))

CURLcode
curl_easy_setopt(CURL *e, CURLoption option, ...)
{
	va_list more;
	va_start(more, option);
	void *argument = va_arg(more, void *);
	va_end(more);
	if (fails(K_curl_easy_setopt, WHERE()))
		return (CURLcode)ERROR();
	return NEXT(curl_easy_setopt)(e, option, argument);
}

CURLMcode
curl_multi_setopt(CURLM *m, CURLMoption option, ...)
{
	va_list more;
	va_start(more, option);
	void *argument = va_arg(more, void *);
	va_end(more);
	if (fails(K_curl_multi_setopt, WHERE()))
		return (CURLMcode)ERROR();
	return NEXT(curl_multi_setopt)(m, option, argument);
}

CURLMsg *
curl_multi_info_read(CURLM *m, int *left)
{
	CURLMsg *message = NEXT(curl_multi_info_read)(m, left);
	if (message != NULL && message->msg == CURLMSG_DONE && message->data.result == CURLE_OK &&
	    fails(K_curl_result, WHERE()))
		message->data.result = (CURLcode)ERROR();
	return message;
}

/* --- libmicrohttpd: MHD_start_daemon is variadic, it fails by what it calls ------------------  */

SYSTEM(struct MHD_Response *, MHD_create_response_from_buffer, NULL,
       (size_t n, void *p, enum MHD_ResponseMemoryMode mode), (n, p, mode))

/* Under another name here, for its parameters differ between versions. */
#define WITH_CALLBACK "MHD_create_response_from_buffer_with_free_callback_cls"
struct MHD_Response *with_callback(size_t n, const void *p, MHD_ContentReaderFreeCallback release, void *c)
	__asm__(WITH_CALLBACK);

struct MHD_Response *
with_callback(size_t n, const void *p, MHD_ContentReaderFreeCallback release, void *c)
{
	static __typeof__(&with_callback) _Atomic next;
	if (fails(K_MHD_create_response_from_buffer_with_free_callback_cls, WHERE())) {
		errno = ERROR();
		return NULL;
	}
	if (atomic_load(&next) == NULL)
		atomic_store(&next, (__typeof__(&with_callback))next_of(WITH_CALLBACK));
	return atomic_load(&next)(n, p, release, c);
}

SYSTEM(enum MHD_Result, MHD_add_response_header, MHD_NO, (struct MHD_Response * r, const char *name, const char *value),
       (r, name, value))
SYSTEM(enum MHD_Result, MHD_queue_response, MHD_NO,
       (struct MHD_Connection * c, unsigned status, struct MHD_Response *r), (c, status, r))

/* --- jansson ------------------------------------------------------------------------------ */

#define JSON(name, parameters, arguments) SYSTEM(json_t *, name, NULL, parameters, arguments)
/* What takes a value over releases it when it fails. */
#define JSON_TAKES(name, parameters, value, arguments)        \
	SYSTEM(int, name, (json_decref(value), -1), parameters, arguments)

JSON(json_object, (void), ())
JSON(json_array, (void), ())
JSON(json_string, (const char *s), (s))
JSON(json_stringn, (const char *s, size_t n), (s, n))
JSON(json_integer, (json_int_t v), (v))
JSON(json_real, (double v), (v))
JSON_TAKES(json_object_set_new, (json_t * o, const char *name, json_t *v), v, (o, name, v))
JSON_TAKES(json_array_append_new, (json_t * a, json_t *v), v, (a, v))
SYSTEM(char *, json_dumps, NULL, (const json_t *j, size_t flags), (j, flags))
JSON(json_deep_copy, (const json_t *j), (j))
