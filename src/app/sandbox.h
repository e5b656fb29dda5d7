/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_APP_SANDBOX_H
#define QKDGATE_APP_SANDBOX_H

#include <stdbool.h>

#include "qkdgate/error.h"

/* What the process gives up for good before it opens anything: core dumps and
 * debuggers, new privileges, capabilities, and the system calls that a gateway
 * has no use for. Once, before the first thread is started: threads inherit it.
 *
 * A call that is not on the list does not exist (ENOSYS), which C libraries
 * handle; one with which nothing good can be meant (another program, another
 * process's memory, mounts, modules) ends the process. */

/* Without `filter` system calls are left alone. QG_E_UNSUPPORTED: the kernel
 * has no such filter; QG_E_IO: it refused, errno says why. */
qg_err qg_sandbox_enter(bool filter) QG_CHECKED;

#endif
