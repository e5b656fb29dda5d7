// SPDX-License-Identifier: Apache-2.0
// Before anything is painted: the colours that were chosen here the last time.
"use strict";
try {
  const chosen = localStorage.getItem("qkdgate-theme");
  if (chosen === "light" || chosen === "dark")
    document.documentElement.dataset.theme = chosen;
} catch {
  // no storage: what the system prefers
}
