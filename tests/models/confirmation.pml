/* SPDX-License-Identifier: Apache-2.0 */
/* Confirmation of one segment between its owner and the far end
 * (docs/soundness.md, rules 3 to 5).
 *
 * The network keeps every message for ever and delivers any of them at any
 * time, again and again, or never; whoever controls it also invents answers
 * that carry no MAC, or a wrong one. Either side crashes between any two steps
 * and then has what was durable. The source below may give the far end another
 * key than the owner, and the right one when it is asked again after a crash.
 * The owner's mark, which every request carries, moves on by itself.
 *
 * What the owner issues from is stored at the far end and is the same key; each
 * one-time key signs one message; what was refused is never accepted.
 *
 * Broken on purpose, each must be found:
 *   BREAK_SEND_BEFORE_STORE     the request is sent before it is durable
 *   BREAK_ANSWER_BEFORE_STORE   the far end answers before the segment is durable
 *   BREAK_REFUSE_IN_MEMORY      a refusal is not durable before it is told
 *   BREAK_UNSIGNED_CONFIRMS     an answer without a valid MAC confirms
 *   BREAK_DEAD_IN_MEMORY        the owner's tombstone does not outlive a crash
 */

#define MARKS 3
#define CRASHES 2

/* The owner's disk and memory. */
bool o_stored_db, o_confirmed_db, o_dead_db;
byte o_mark_db;
bool o_stored, o_confirmed, o_dead;
byte o_mark, mark; /* that of the request; the newest */
/* The far end's. */
bool f_stored_db, f_refused_db;
bool f_stored, f_refused;
bool same;      /* the far end's key is the owner's */
bool same_kept; /* that of the segment it stored */
byte f_mark;    /* of the request it answered */
byte f_mark_db;
/* The network. */
bool request[MARKS];
bool confirmed[MARKS]; /* with the MAC over that request's */
bool refused;          /* "mismatch", or an invention */
/* For the properties. */
byte sent_mark = MARKS; /* mark of the one message that the request key signed */
bool was_refused, was_dead;
byte crashes;

inline sign_request() {
	assert(sent_mark == MARKS || sent_mark == o_mark);
	sent_mark = o_mark;
	request[o_mark] = true
}

inline crash_owner() {
	crashes++;
	o_stored = o_stored_db;
	o_confirmed = o_confirmed_db;
	o_dead = o_dead_db;
	o_mark = o_mark_db
}

inline crash_far() {
	crashes++;
	f_stored = f_stored_db;
	f_refused = f_refused_db;
	f_mark = f_mark_db;
	if
	:: !f_stored_db && !f_refused -> same = true
	:: true
	fi
}

inline owner_usable() {
	o_confirmed = true;
	assert(f_stored_db && same_kept && !was_dead)
}

active proctype world() {
	if
	:: same = true
	:: same = false
	fi;
	do
	/* The owner. */
	:: mark + 1 < MARKS -> mark++
	:: atomic { !o_stored && !o_dead -> o_mark = mark; o_stored = true;
#ifdef BREAK_SEND_BEFORE_STORE
		sign_request()
#endif
	   }
	:: atomic { o_stored && !o_stored_db && !o_dead -> o_stored_db = true; o_mark_db = o_mark }
	:: atomic { o_stored_db && !o_confirmed && !o_dead -> sign_request() }
	:: atomic { o_stored_db && !o_confirmed && !o_dead && confirmed[o_mark] -> owner_usable() }
#ifdef BREAK_UNSIGNED_CONFIRMS
	:: atomic { o_stored_db && !o_confirmed && !o_dead && refused -> owner_usable() }
#endif
	:: o_confirmed && !o_confirmed_db -> o_confirmed_db = true
	:: atomic { o_stored_db && !o_confirmed && !o_dead && refused ->
		o_dead = true;
#ifndef BREAK_DEAD_IN_MEMORY
		o_dead_db = true;
#endif
		was_dead = true }
	:: atomic { crashes < CRASHES -> crash_owner() }
	/* The far end: what a request makes of it. */
	:: atomic { request[0] && !f_stored && !f_refused && same ->
		f_stored = true; f_mark = 0; assert(!was_refused) }
	:: atomic { request[1] && !f_stored && !f_refused && same ->
		f_stored = true; f_mark = 1; assert(!was_refused) }
	:: atomic { request[2] && !f_stored && !f_refused && same ->
		f_stored = true; f_mark = 2; assert(!was_refused) }
	:: atomic { (request[0] || request[1] || request[2]) && !f_stored && !f_refused && !same -> f_refused = true }
	:: atomic { f_stored && !f_stored_db -> f_stored_db = true; f_mark_db = f_mark; same_kept = same }
	:: f_refused && !f_refused_db -> f_refused_db = true
#ifdef BREAK_ANSWER_BEFORE_STORE
	:: atomic { f_stored && request[f_mark] -> confirmed[f_mark] = true }
#else
	:: atomic { f_stored_db && request[f_mark_db] -> confirmed[f_mark_db] = true }
#endif
#ifdef BREAK_REFUSE_IN_MEMORY
	:: atomic { f_refused -> refused = true; was_refused = true }
#else
	:: atomic { f_refused_db -> refused = true; was_refused = true }
#endif
	:: atomic { crashes < CRASHES -> crash_far() }
	/* The network invents a refusal; it cannot sign. */
	:: !refused -> refused = true
	:: crashes == CRASHES -> break
	od
}
