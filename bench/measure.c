/* SPDX-License-Identifier: Apache-2.0 */
#include "measure.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t
bench_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- another process ------------------------------------------------------- */

static uint64_t
thread_cpu_ns(pid_t pid, const char *thread)
{
	char path[300];
	int n = snprintf(path, sizeof path, "/proc/%ld/task/%s/schedstat", (long)pid, thread);
	if (n < 0 || (size_t)n >= sizeof path)
		return 0;
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return 0;
	uint64_t ns = 0;
	if (fscanf(f, "%" SCNu64, &ns) != 1)
		ns = 0;
	fclose(f);
	return ns;
}

uint64_t
bench_cpu_ns(pid_t pid)
{
	char path[64];
	int n = snprintf(path, sizeof path, "/proc/%ld/task", (long)pid);
	DIR *d = n > 0 && (size_t)n < sizeof path ? opendir(path) : NULL;
	if (d == NULL)
		return 0;
	uint64_t sum = 0;
	for (const struct dirent *e; (e = readdir(d)) != NULL;)
		if (e->d_name[0] != '.')
			sum += thread_cpu_ns(pid, e->d_name);
	closedir(d);
	return sum;
}

uint64_t
bench_rss_bytes(pid_t pid)
{
	char line[128];
	int n = snprintf(line, sizeof line, "/proc/%ld/status", (long)pid);
	FILE *f = n > 0 && (size_t)n < sizeof line ? fopen(line, "re") : NULL;
	if (f == NULL)
		return 0;
	uint64_t kib = 0;
	while (fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1)
			break;
	fclose(f);
	return kib * 1024;
}

/* --- histogram ------------------------------------------------------------- */

/* Values below 2 * BENCH_PARTS stand for themselves; above, a row holds one power of two. */
static uint32_t
place(uint64_t ns)
{
	uint32_t row = 0;
	while (ns >> row >= (uint64_t)2 * BENCH_PARTS)
		row++;
	uint64_t at = (uint64_t)row * BENCH_PARTS + (ns >> row);
	const uint32_t last = BENCH_ROWS * BENCH_PARTS - 1;
	return at < last ? (uint32_t)at : last;
}

/* The largest value that has this place. */
static uint64_t
highest(uint32_t at)
{
	if (at < 2 * BENCH_PARTS)
		return at;
	uint32_t row = at / BENCH_PARTS - 1;
	return (((uint64_t)(at - row * BENCH_PARTS) + 1) << row) - 1;
}

void
bench_note(bench_histogram *h, uint64_t ns)
{
	h->count[place(ns)]++;
	h->total++;
	if (ns > h->most_ns)
		h->most_ns = ns;
}

uint64_t
bench_percentile(const bench_histogram *h, double part)
{
	uint64_t below = (uint64_t)ceil(part * (double)h->total), seen = 0;
	for (uint32_t i = 0; i < BENCH_ROWS * BENCH_PARTS; i++) {
		seen += h->count[i];
		if (seen >= below && seen > 0)
			return highest(i) < h->most_ns ? highest(i) : h->most_ns;
	}
	return h->most_ns;
}
