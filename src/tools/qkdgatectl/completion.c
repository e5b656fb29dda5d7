/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "ctl_internal.h"

/* For bash, made from the tables: so that it never lacks a command. Streams are
 * asked for at the gateway. */
int
ctl_completion(const ctl_options *o, const ctl_command *c)
{
	(void)o, (void)c;
	printf("# bash completion of qkdgatectl, made by: qkdgatectl completion\n"
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
	       "\t--socket|--cert|--key|--ca) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n"
	       "\tstream|reopen|delete-keys)\n"
	       "\t\tCOMPREPLY=($(compgen -W \"$(qkdgatectl --json --timeout 1 streams 2>/dev/null |\n"
	       "\t\t\tsed -n 's/.*\"name\": \"\\([^\"]*\\)\".*/\\1/p')\" -- \"$word\")); return ;;\n"
	       "\tesac\n"
	       "\tcase $word in\n"
	       "\t-*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
	       "\t*) COMPREPLY=($(compgen -W \"$commands\" -- \"$word\")) ;;\n"
	       "\tesac\n"
	       "}\n"
	       "complete -F _qkdgatectl qkdgatectl\n");
	return CTL_DONE;
}
