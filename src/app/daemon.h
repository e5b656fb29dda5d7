/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DAEMON_H
#define QKDGATE_DAEMON_H

#include "qkdgate/config.h"
#include "qkdgate/error.h"

/* The daemon: makes the parts of the configuration, plugs them together, runs
 * until SIGTERM or SIGINT, and takes them apart in the reverse order. */

/* Returns after an orderly stop, or with the reason why it did not start
 * (logged). `file` is read again by a reload. One call per process. */
qg_err qg_daemon_run(const char *file, const qg_config *cfg) QG_CHECKED;

/* Ends every epoch in the database; no daemon may run on it. */
qg_err qg_daemon_reset_epochs(const char *file, const qg_config *cfg) QG_CHECKED;

#endif
