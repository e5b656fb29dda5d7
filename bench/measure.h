/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_BENCH_MEASURE_H
#define QKDGATE_BENCH_MEASURE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Clocks, the CPU time and memory of another process, and a histogram. */

uint64_t bench_now_ns(void);

/* CPU time of all threads of a process so far, by the scheduler's own count; 0: none such. */
uint64_t bench_cpu_ns(pid_t pid);

/* Resident memory of a process; 0: none such. */
uint64_t bench_rss_bytes(pid_t pid);

/* Log-linear like HdrHistogram: every power of two is cut into 256 parts, so that a value is
 * known to 0.4 %, from 1 ns to 10 minutes. */
#define BENCH_PARTS_BITS 8u
#define BENCH_PARTS (1u << BENCH_PARTS_BITS)
#define BENCH_ROWS 33u

typedef struct bench_histogram {
	uint64_t count[BENCH_ROWS * BENCH_PARTS];
	uint64_t total;
	uint64_t most_ns;
} bench_histogram;

void bench_note(bench_histogram *h, uint64_t ns);

/* The value below which this part (0 to 1) of all values lies. */
uint64_t bench_percentile(const bench_histogram *h, double part);

#endif
