/* SPDX-License-Identifier: Apache-2.0 */
/* What libfault.so shares with the test that drives it: a file, named by
 * $QG_FAULTS, that both map. control.py knows the same layout. */
#ifndef QG_TEST_FAULTS_H
#define QG_TEST_FAULTS_H

#include <stdatomic.h>
#include <stdint.h>

#define QG_FAULT_SITES 8192
#define QG_FAULT_OBJECTS 256
#define QG_FAULT_MAGIC UINT64_C(0x31746c7561666771)

/* A call site: which function, called from where. Offset 0: never called. */
typedef struct qg_fault_site {
	_Atomic uint64_t where; /* kind << 56 | object << 48 | offset of the return address in its object */
	_Atomic uint64_t calls;
} qg_fault_site;

typedef struct qg_fault_control {
	uint64_t magic;
	_Atomic uint32_t armed;  /* kind + 1; 0: nothing fails */
	_Atomic uint32_t object; /* whose calls: 0 any, 1 the program's own, 2 those of libraries */
	_Atomic uint64_t site;   /* only this one; 0: any */
	_Atomic int64_t skip;    /* so many calls go well first */
	_Atomic int64_t times;   /* then so many fail */
	_Atomic int64_t error;   /* errno, or what the library's function returns */
	_Atomic uint32_t half;   /* write: half of it is written, and then it fails (2) or says so (1) */
	_Atomic uint32_t fired;
	_Atomic uint64_t fired_at; /* the site of the last one */
	/* clocks: CLOCK_REALTIME is off by so much; while frozen no clock moves */
	_Atomic int64_t step_ns;
	_Atomic uint32_t frozen;
	_Atomic uint32_t clock_reads;
	_Atomic int64_t frozen_ns[16];
	_Atomic int64_t thaw_ns; /* of CLOCK_MONOTONIC, when they move again; 0: when the test says so */
	qg_fault_site sites[QG_FAULT_SITES];
	char object_name[QG_FAULT_OBJECTS][32]; /* from 1: the program, then its libraries */
} qg_fault_control;

#endif
