/* SPDX-License-Identifier: Apache-2.0 */
/* One key that is handed over to another key manager (docs/soundness.md, rules
 * 14 and 18): A gives it, and releases it to its master once P acknowledged; P
 * gives it to its target.
 *
 * The network keeps every message for ever and delivers any of them at any
 * time, again and again, or never. Either side crashes between any two steps.
 * Either side gives up at any time. The target asks P as early as it likes.
 *
 * Nothing is released after a void; what one side counts as void nobody got at
 * the other; what A released P does not make void.
 *
 * Broken on purpose, each must be found:
 *   BREAK_SEND_BEFORE_PERSIST   the offer is sent before it is durable
 *   BREAK_RELEASE_UNACKED       that P took it counts as that it holds it for all
 *   BREAK_LATE_ACK_RELEASES     an acknowledgement wins over a void begun before
 *   BREAK_VOID_WINS_ALWAYS      a void is no conditional update: it undoes a release
 *   BREAK_NO_TOMBSTONE          a void for an unknown key is not remembered
 *   BREAK_VOID_IGNORES_TARGET   P answers "voided" for a key that its target has
 *   BREAK_TARGET_SIDE_ALONE     P makes it void without asking A
 */

#define CRASHES 2

mtype = { none, offered, released, voiding, voided, failed, taken, held };

/* Each side's disk. What is in memory only is the next step, so a crash is that
 * the step does not come, or that `sent` is not on disk. */
mtype a = none;
mtype p = none;
bool p_tombstone;
bool delivered;     /* P's target has it */
bool forgotten;     /* A: sent and then not known any more */
/* The network. */
bool n_offer, n_ack, n_void, n_voided, n_failed_to_void;     /* A to P and back */
bool m_void, m_voided, m_failed_to_void;                     /* P to A and back */
/* For the properties. */
bool was_released, was_void_told;
byte crashes;

inline check() {
	assert(!(was_released && (a == voiding || a == voided)));
	assert(!(a == voided && delivered));
	assert(!(forgotten && a == none && delivered));
	assert(!(was_released && p == voided));
	assert(!(was_released && (p == none || p == taken)))
}

active proctype world() {
	do
	/* --- A ------------------------------------------------------------- */
#ifdef BREAK_SEND_BEFORE_PERSIST
	:: atomic { a == none && !n_offer -> n_offer = true; check() }
	:: atomic { a == none && n_offer && !forgotten -> a = offered; check() }
	:: atomic { a == none && n_offer && crashes < CRASHES -> crashes++; forgotten = true; check() }
#else
	:: atomic { a == none -> a = offered; check() }
	:: atomic { a == offered -> n_offer = true; check() }
#endif
#ifdef BREAK_RELEASE_UNACKED
	:: atomic { a == offered && (p == taken || p == held) -> a = released; was_released = true; check() }
#endif
	:: atomic { a == offered && n_ack -> a = released; was_released = true; check() }
#ifdef BREAK_LATE_ACK_RELEASES
	:: atomic { a == voiding && n_ack -> a = released; was_released = true; check() }
#endif
	:: atomic { a == offered -> a = voiding; check() } /* no answer in time, expired, the master went */
#ifdef BREAK_VOID_WINS_ALWAYS
	:: atomic { a == released -> a = voiding; check() }
#endif
	:: atomic { a == voiding -> n_void = true; check() }
	:: atomic { a == voiding && n_voided -> a = voided; check() }
	:: atomic { a == voiding && n_failed_to_void -> a = failed; check() }
	/* P asks A to make it void. */
	:: atomic { m_void && a == offered -> a = voiding; check() }
	:: atomic { m_void && (a == voiding || a == voided || a == failed) -> m_voided = true; check() }
	:: atomic { m_void && a == released -> m_failed_to_void = true; check() }
	/* --- P ------------------------------------------------------------- */
	:: atomic { n_offer && p == none && !p_tombstone -> p = taken; check() }
	:: atomic { p == taken -> p = held; check() } /* durable at every target */
	:: atomic { p == held -> n_ack = true; check() }
	:: atomic { p == held && !delivered -> delivered = true; check() }
	/* A's void. */
	:: atomic { n_void && (p == taken || p == held || p == voiding) && !delivered -> p = voided; check() }
#ifdef BREAK_NO_TOMBSTONE
	:: atomic { n_void && p == none -> n_voided = true; check() }
#else
	:: atomic { n_void && p == none -> p_tombstone = true; n_voided = true; check() }
#endif
	:: atomic { n_void && p == voided -> n_voided = true; check() }
#ifdef BREAK_VOID_IGNORES_TARGET
	:: atomic { n_void && delivered -> n_voided = true; check() }
#else
	:: atomic { n_void && delivered -> n_failed_to_void = true; check() }
#endif
	/* P cannot get its acknowledgement through. Nobody is given the key until
	 * A has said what it was. */
#ifdef BREAK_TARGET_SIDE_ALONE
	:: atomic { (p == taken || p == held) && !delivered -> p = voided; check() }
#else
	:: atomic { (p == taken || p == held) && !delivered -> p = voiding; check() }
#endif
	:: atomic { p == voiding -> m_void = true; check() }
	:: atomic { p == voiding && m_voided -> p = voided; check() }
	:: atomic { p == voiding && m_failed_to_void -> p = held; check() }
	:: (a == released && delivered) || (a == voided && (p == voided || p_tombstone)) || a == failed -> break
	od
}
