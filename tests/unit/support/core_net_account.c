/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* The pads' accounts of every link, held against the messages that crossed it. */

typedef struct link_sum {
	uint64_t messages, data, delivered, delivered_data;
} link_sum;

/* Of the messages recorded: all that were sent, and those that their receiver
 * took (it answered with a MAC, so it had spent the pads). */
static link_sum sum_of(core_net *n, unsigned from, unsigned to)
{
	static _Thread_local qg_kms_forward m;
	static _Thread_local qg_kms_forward_answer a;
	link_sum sum = { 0 };
	for (long i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		must(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m), "record");
		sum.messages++;
		sum.data += m.masked.data_len;
		if (r.answer != NULL && r.status == 200 &&
		    qg_kms_forward_answer_decode(r.answer, r.answer_len, &a) == QG_OK &&
		    a.result != QG_KMS_FORWARD_REFUSED && a.result != QG_KMS_FORWARD_NO_PAD) {
			sum.delivered++;
			sum.delivered_data += m.masked.data_len;
		}
		net_record_free(&r);
	}
	return sum;
}

qg_pad_account net_account(core_net *n, unsigned from, unsigned to, unsigned at)
{
	qg_pad_account a;
	qg_stream *st = net_stream(n, from, to, at);
	must(st != NULL, "no such link");
	pthread_mutex_lock(&st->lock);
	qg_pads_account(st, at == from, &a);
	pthread_mutex_unlock(&st->lock);
	return a;
}

static bool adds_up(const qg_pad_account *a, uint64_t messages, uint64_t data)
{
	return a->opened == a->used + a->given_up + a->open && a->used == a->data + a->overhead &&
	       a->messages == messages && a->data == data && a->overhead == messages * QG_KMS_MAC_OVERHEAD;
}

static void print_account(FILE *out, const char *link, const char *role, const qg_pad_account *a)
{
	fprintf(out, "%-8s%-10s%10llu%10llu%10llu%10llu%10llu%10llu%10llu\n", link, role, (unsigned long long)a->opened,
		(unsigned long long)a->used, (unsigned long long)a->data, (unsigned long long)a->overhead,
		(unsigned long long)a->messages, (unsigned long long)a->given_up, (unsigned long long)a->open);
}

static bool link_adds_up(core_net *n, unsigned from, unsigned to, FILE *out)
{
	char name[32];
	put_name(name, sizeof name, "to", from, to);
	link_sum sum = sum_of(n, from, to);
	qg_pad_account mine = net_account(n, from, to, from), theirs = net_account(n, from, to, to);
	print_account(out, name, "sender", &mine);
	print_account(out, name, "receiver", &theirs);
	bool good = adds_up(&mine, sum.messages, sum.data) && adds_up(&theirs, sum.delivered, sum.delivered_data);
	if (!good)
		fprintf(stderr, "%s: sent %llu bytes in %llu messages, taken %llu in %llu\n", name,
			(unsigned long long)sum.data, (unsigned long long)sum.messages,
			(unsigned long long)sum.delivered_data, (unsigned long long)sum.delivered);
	return good;
}

bool net_accounts_add_up(core_net *n, FILE *out)
{
	bool good = true;
	fprintf(out, "%-8s%-10s%10s%10s%10s%10s%10s%10s%10s\n", "link", "end", "opened", "used", "= data", "+ MACs",
		"messages", "given up", "open");
	for (size_t i = 0; i < n->plan.n_links; i++) {
		const net_link *l = &n->plan.link[i];
		good &= link_adds_up(n, l->a, l->b, out);
		good &= link_adds_up(n, l->b, l->a, out);
	}
	return good;
}
