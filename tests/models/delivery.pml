/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery with group commit at the far end (docs/soundness.md, rule 10).
 *
 * Clients ask for the same keys, again and again. A request reserves its key in
 * memory and waits; the committer writes all that waits in one transaction,
 * and only then the answers leave. A commit may fail, or end with an outcome
 * that nobody knows; the daemon crashes between any two steps.
 *
 * No key is delivered twice. (It may be lost: at most once.)
 *
 * Broken on purpose, each must be found:
 *   BREAK_DELIVER_BEFORE_COMMIT   the answer leaves when the key is reserved
 *   BREAK_UNKNOWN_IS_DONE         an unknown outcome counts as a commit
 *   BREAK_MEMORY_DECIDES          a start trusts a bitmap that a crash left behind
 *   BREAK_NO_RESERVATION          two requests for one key join the same group
 */

#define KEYS 2
#define CRASHES 2
#define COMMITS 4

bool used_db[KEYS];      /* durable */
bool stale[KEYS];        /* the bitmap as the last flush wrote it, with the blob */
bool used[KEYS];         /* in memory: reserved or consumed */
byte waiting[KEYS];      /* requests of the next group */
byte group[KEYS];        /* requests of the one being committed */
byte delivered[KEYS];
byte crashes, commits;


inline answer(k, n) {
	delivered[k] = delivered[k] + n;
	assert(delivered[k] <= 1)
}

inline ask(k) {
	if
#ifdef BREAK_NO_RESERVATION
	:: !used_db[k] && waiting[k] < 2 ->
#else
	:: !used[k] ->
#endif
		used[k] = true;
#ifdef BREAK_DELIVER_BEFORE_COMMIT
		answer(k, 1);
		waiting[k]++
#else
		waiting[k]++
#endif
	:: else -> skip /* consumed, or another request is first: 400 */
	fi
}

inline take() {
	k = 0;
	do
	:: k < KEYS -> group[k] = waiting[k]; waiting[k] = 0; k++
	:: else -> break
	od
}

inline write_group() {
	k = 0;
	do
	:: k < KEYS && group[k] > 0 -> used_db[k] = true; k++
	:: k < KEYS && group[k] == 0 -> k++
	:: else -> break
	od
}

inline deliver_group() {
	k = 0;
	do
	:: k < KEYS ->
#ifndef BREAK_DELIVER_BEFORE_COMMIT
		answer(k, group[k]);
#endif
		group[k] = 0;
		k++
	:: else -> break
	od
}

/* Told 503; a commit that did not happen frees the key, one of unknown outcome
 * does not. */
inline refuse_group(frees) {
	k = 0;
	do
	:: k < KEYS ->
		if
		:: group[k] > 0 && frees -> used[k] = false
		:: else -> skip
		fi;
		group[k] = 0;
		k++
	:: else -> break
	od
}

inline restart() {
	crashes++;
	k = 0;
	do
	:: k < KEYS ->
		waiting[k] = 0;
		group[k] = 0;
#ifdef BREAK_MEMORY_DECIDES
		used_db[k] = stale[k];
#endif
		used[k] = used_db[k];
		k++
	:: else -> break
	od
}

active proctype daemon() {
	byte k;
	byte step = 0; /* 0 idle, 1 taken, 2 committed, 3 unknown, 4 failed */
	do
	:: atomic { true -> ask(0) }
	:: atomic { true -> ask(1) }
	:: atomic { step == 0 && commits < COMMITS && waiting[0] + waiting[1] > 0 -> take(); commits++; step = 1 }
	:: atomic { step == 1 -> write_group(); step = 2 }
	:: atomic { step == 1 -> write_group(); step = 3 } /* it happened, and nobody knows */
	:: atomic { step == 1 -> step = 3 }                /* it did not */
	:: atomic { step == 1 -> step = 4 }
	:: atomic { step == 2 -> deliver_group(); step = 0 }
#ifdef BREAK_UNKNOWN_IS_DONE
	:: atomic { step == 3 -> deliver_group(); step = 0 }
#else
	:: atomic { step == 3 -> refuse_group(false); step = 0 }
#endif
	:: atomic { step == 4 -> refuse_group(true); step = 0 }
	:: atomic { crashes < CRASHES -> restart(); step = 0 }
	:: crashes == CRASHES && commits == COMMITS && step == 0 -> break
	od
}
