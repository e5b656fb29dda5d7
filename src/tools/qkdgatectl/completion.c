/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "ctl_internal.h"

/* For bash, made from the tables: so that it never lacks a command. Names are
 * asked for at the gateway. */
int
ctl_completion(const ctl_options *o, const ctl_command *c)
{
	(void)o, (void)c;
	printf("# bash completion of qkdgatectl, made by: qkdgatectl completion\n"
	       "_qkdgatectl_names() {\n"
	       "\tqkdgatectl --json --timeout 1 \"$1\" 2>/dev/null |\n"
	       "\t\tsed -n 's/.*\"'\"$2\"'\": \"\\([A-Za-z0-9._:@/-]*\\)\".*/\\1/p' # nothing that compgen would run\n"
	       "}\n"
	       "_qkdgatectl() {\n"
	       "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
	       "\tlocal commands='");
	for (size_t i = 0; i < ctl_n_commands; i++)
		printf("%s%s", i > 0 ? " " : "", ctl_commands[i].name);
	printf("'\n\tlocal options='");
	for (size_t i = 0; ctl_option_names[i] != NULL; i++)
		printf("%s%s", i > 0 ? " " : "", ctl_option_names[i]);
	printf("'\n"
	       "\tcase $before in\n"
	       "\t--socket|--cert|--key|--ca|--master-key|--key-ring|rotate-master-key)\n"
	       "\t\tCOMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
	       "\tstream|reopen|delete-keys)\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$(_qkdgatectl_names streams name)\" -- \"$word\")); return ;;\n"
	       "\tsuspend|resume)\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$(_qkdgatectl_names saes id)\" -- \"$word\")); return ;;\n"
	       "\tsuspend-peer|resume-peer)\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$(_qkdgatectl_names peers id)\" -- \"$word\")); return ;;\n"
	       "\tsae|rule) COMPREPLY=($(compgen -W 'add remove' -- \"$word\")); return ;;\n"
	       "\taudit) COMPREPLY=($(compgen -W 'verify rotate' -f -- \"$word\")); return ;;\n"
	       "\tverify) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
	       "\tadd) COMPREPLY=(); return ;;\n"
	       "\tremove)\n"
	       "\t\tcase ${COMP_WORDS[COMP_CWORD-2]} in\n"
	       "\t\tsae) COMPREPLY=($(compgen -W \"$(_qkdgatectl_names saes id)\" -- \"$word\")) ;;\n"
	       "\t\trule) COMPREPLY=($(compgen -W \"$(_qkdgatectl_names rules name)\" -- \"$word\")) ;;\n"
	       "\t\tesac; return ;;\n"
	       "\tesac\n"
	       "\tcase $word in\n"
	       "\t-*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
	       "\t*) COMPREPLY=($(compgen -W \"$commands\" -- \"$word\")) ;;\n"
	       "\tesac\n"
	       "}\n"
	       "complete -F _qkdgatectl qkdgatectl\n");
	return CTL_DONE;
}
