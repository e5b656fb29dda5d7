/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_KMS_MSG_MASKED_H
#define TESTS_UNIT_KMS_MSG_MASKED_H

#include "kms_msg_sample.h"

/* A sample of each message that carries key, and of what goes with them. */

#define DATA {0xfb, 0xef, 0xbe, 0xff, 0xff, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
#define DATA_TEXT "\"++++////AAECAwQFBgcICQ==\""
#define OTHER_ID \
	{{0xbc, 0x49, 0x0d, 0x83, 0x8d, 0xe8, 0x84, 0xe5, 0x9f, 0x8b, 0x5a, 0x9e, 0x01, 0x02, 0x03, 0x04}}
#define OTHER_TEXT "\"bc490d83-8de8-84e5-9f8b-5a9e01020304\""

static const qg_kms_forward forward = {
	.stream = "a-to-z", .epoch = SIXTEEN, .segment = 3, .first = 4, .count = 2, .chunk_size = 8, .share = 1,
	.shares = 2, .n_path = 3, .path = {"KME-A", "KME-B", "KME-Z"}, .hop = 1, .timeout_ms = 5000,
	.masked = {
		.link = "b-to-z", .n_pads = 3,
		.pad = {{.epoch = MAC, .segment = 9, .offset = 32, .len = 48}, {.epoch = MAC, .segment = 12, .len = 16},
			{.epoch = MAC, .segment = 10, .offset = 8, .len = 16}},
		.oldest_mac = 9, .oldest_pad = 10, .opened_pad = 11, .mac = MAC, .data_len = 16, .data = DATA,
	},
};
static const qg_kms_forward_answer delivered = {.result = QG_KMS_FORWARD_DELIVERED, .at = "KME-Z", .mac = MAC};
static const qg_kms_forward_answer no_pad = {.result = QG_KMS_FORWARD_NO_PAD, .at = "KME-B"};
static const qg_kms_make make = {
	.from = "KME-A", .to = "KME-C", .initiator = "sae-alice", .targets = {.n = 2, .id = {"sae-bob", "sae-carol"}},
	.lifetime_s = 3600, .n_keys = 2, .key = {{.id = KSID, .size = 11}, {.id = OTHER_ID, .size = 5}},
	.masked = {
		.link = "a-to-c", .n_pads = 2,
		.pad = {{.epoch = SIXTEEN, .segment = 1, .len = 64}, {.epoch = SIXTEEN, .segment = 2, .len = 16}},
		.oldest_mac = 1, .oldest_pad = 0, .opened_pad = 3, .mac = MAC, .data_len = 16, .data = DATA,
	},
};
static const qg_kms_make_answer held = {.result = QG_KMS_MAKE_HELD, .mac = MAC};
static const qg_kms_make_answer refusal = {.result = QG_KMS_MAKE_REFUSED};
static const qg_kms_delete deletion = {.initiator = "sae-alice", .n = 2, .id = {KSID, OTHER_ID}};
static const qg_kms_delete_answer deleted = {.voided = 1, .delivered = 1};
static const qg_kms_report report = {
	.origin = "KME-B", .sequence = 1234567890123, .n = 2,
	.link = {{.peer = "KME-A", .state = QG_KMS_LINK_UP, .bytes = 8192},
		 {.peer = "KME-Z", .state = QG_KMS_LINK_STARVING, .bytes = 0}},
};
static const qg_kms_report no_report = {.origin = "KME-D"};

WRAP(forward)
WRAP(forward_answer)
WRAP(make)
WRAP(make_answer)
WRAP(delete)
WRAP(delete_answer)
WRAP(report)

enum { FORWARD, DELIVERED, NO_PAD, MAKE, HELD, REFUSED, DELETE, DELETED, REPORT, NO_REPORT };

const sample samples[] = {
	[FORWARD] = {"forward_keys", forward_encode, forward_decode, &forward, sizeof forward,
	 "{\"version\":1,\"stream\":\"a-to-z\",\"epoch\":" SIXTEEN_TEXT ",\"segment\":3,\"first\":4,\"count\":2,"
	 "\"chunk_size\":8,\"share\":1,\"shares\":2,\"path\":[\"KME-A\",\"KME-B\",\"KME-Z\"],\"hop\":1,"
	 "\"timeout_ms\":5000,\"link\":\"b-to-z\",\"pads\":[{\"epoch\":" MAC_TEXT ",\"segment\":9,\"offset\":32,"
	 "\"len\":48},{\"epoch\":" MAC_TEXT ",\"segment\":12,\"offset\":0,\"len\":16},{\"epoch\":" MAC_TEXT
	 ",\"segment\":10,\"offset\":8,\"len\":16}],\"oldest_mac\":9,\"oldest_pad\":10,\"opened_pad\":11,"
	 "\"mac\":" MAC_TEXT ",\"data\":" DATA_TEXT "}"},
	[DELIVERED] = {"forward_keys delivered", forward_answer_encode, forward_answer_decode, &delivered,
	 sizeof delivered, "{\"version\":1,\"result\":\"delivered\",\"at\":\"KME-Z\",\"mac\":" MAC_TEXT "}"},
	[NO_PAD] = {"forward_keys no_pad", forward_answer_encode, forward_answer_decode, &no_pad, sizeof no_pad,
	 "{\"version\":1,\"result\":\"no_pad\",\"at\":\"KME-B\"}"},
	[MAKE] = {"make_keys_external", make_encode, make_decode, &make, sizeof make,
	 "{\"version\":1,\"from\":\"KME-A\",\"to\":\"KME-C\",\"initiator\":\"sae-alice\",\"targets\":[\"sae-bob\","
	 "\"sae-carol\"],\"lifetime_s\":3600,\"keys\":[{\"id\":" KSID_TEXT ",\"size\":11},{\"id\":" OTHER_TEXT
	 ",\"size\":5}],\"link\":\"a-to-c\",\"pads\":[{\"epoch\":" SIXTEEN_TEXT ",\"segment\":1,\"offset\":0,"
	 "\"len\":64},{\"epoch\":" SIXTEEN_TEXT ",\"segment\":2,\"offset\":0,\"len\":16}],\"oldest_mac\":1,"
	 "\"oldest_pad\":0,\"opened_pad\":3,\"mac\":" MAC_TEXT ",\"data\":" DATA_TEXT "}"},
	[HELD] = {"make_keys_external held", make_answer_encode, make_answer_decode, &held, sizeof held,
	 "{\"version\":1,\"result\":\"held\",\"mac\":" MAC_TEXT "}"},
	[REFUSED] = {"make_keys_external refused", make_answer_encode, make_answer_decode, &refusal, sizeof refusal,
	 "{\"version\":1,\"result\":\"refused\"}"},
	[DELETE] = {"delete_keys", delete_encode, delete_decode, &deletion, sizeof deletion,
	 "{\"version\":1,\"initiator\":\"sae-alice\",\"ids\":[" KSID_TEXT "," OTHER_TEXT "]}"},
	[DELETED] = {"delete_keys answer", delete_answer_encode, delete_answer_decode, &deleted, sizeof deleted,
	 "{\"version\":1,\"voided\":1,\"delivered\":1}"},
	[REPORT] = {"post_status", report_encode, report_decode, &report, sizeof report,
	 "{\"version\":1,\"origin\":\"KME-B\",\"sequence\":1234567890123,\"links\":[{\"peer\":\"KME-A\","
	 "\"state\":\"up\",\"bytes\":8192},{\"peer\":\"KME-Z\",\"state\":\"starving\",\"bytes\":0}]}"},
	[NO_REPORT] = {"post_status of none", report_encode, report_decode, &no_report, sizeof no_report,
	 "{\"version\":1,\"origin\":\"KME-D\",\"sequence\":0,\"links\":[]}"},
};
const size_t n_samples = COUNT(samples);

#endif
