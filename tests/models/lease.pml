/* SPDX-License-Identifier: Apache-2.0 */
/* Leases of an outbound epoch (docs/soundness.md, rules 8 and 9).
 *
 * The owner issues chunk indexes below a mark that is durable ahead of use: the
 * database first, then the anchor, then memory. It crashes between any two
 * steps. Once, while it is down, the database may be put back to a state that
 * was copied at any moment; the anchor is not in that copy.
 *
 * No index is issued twice in one epoch, whatever happens.
 *
 * Broken on purpose, each must be found:
 *   BREAK_USE_BEFORE_MARK       the new mark is used before it is durable
 *   BREAK_RESUME_BELOW_MARK     a start goes on where the last flush saw the cursor
 *   BREAK_ANCHOR_AFTER_USE      the anchor follows after the mark came into use
 *   BREAK_ANCHOR_IGNORED        a start does not compare anchor and database
 */

#define INDEXES 6
#define STEP 2

/* On disk. */
byte db_mark, db_cursor, anchor_mark;
/* A copy of the database. */
byte copy_mark, copy_cursor;
bool copied, put_back;
/* In memory; gone with a crash. */
byte mark, cursor;
bool alive = true; /* the epoch */

byte issued[INDEXES];

inline issue() {
	issued[cursor]++;
	assert(issued[cursor] == 1);
	cursor++
}

inline start() {
	if
#ifndef BREAK_ANCHOR_IGNORED
	:: db_mark < anchor_mark -> alive = false /* the database is older than it should be */
#endif
	:: else ->
		mark = db_mark;
#ifdef BREAK_RESUME_BELOW_MARK
		cursor = db_cursor
#else
		cursor = db_mark
#endif
	fi
}

inline crash() {
	mark = 0;
	cursor = 0;
	if
	:: copied && !put_back ->
		db_mark = copy_mark;
		db_cursor = copy_cursor;
		put_back = true
	:: true
	fi
}

active proctype owner() {
	byte want;
	start();
	do
	:: !alive -> break
	:: atomic { alive && cursor < mark -> issue() }
	:: alive && mark + STEP <= INDEXES ->
		want = mark + STEP;
#ifdef BREAK_USE_BEFORE_MARK
		mark = want;
		do
		:: atomic { cursor < mark -> issue() }
		:: break
		od;
#endif
		if
		:: db_mark = want
		:: atomic { crash(); start() }; goto next
		fi;
#ifdef BREAK_ANCHOR_AFTER_USE
		mark = want;
		do
		:: atomic { cursor < mark -> issue() }
		:: break
		od;
#endif
		if
		:: anchor_mark = want
		:: atomic { crash(); start() }; goto next
		fi;
		mark = want;
next:		skip
	:: alive && !copied -> atomic { copied = true; copy_mark = db_mark; copy_cursor = db_cursor }
	:: alive && db_cursor != cursor -> db_cursor = cursor /* a flush */
	:: atomic { alive -> crash(); start() }
	:: mark == INDEXES && cursor == mark -> break
	od
}
