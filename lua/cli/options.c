/* Options in the forms of `lua`: those without a value stand alone (-iv is
   refused), -e and -l take the rest of their word or the next word. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* Notes the option at argv[*i]; false when it is none of ours. */
static bool read_option(char **argv, int *i, cli_options *o) {
    const char *word = argv[*i];
    char letter = word[1];
    if (letter == 'e' || letter == 'l') {
        o->execute |= letter == 'e';
        const char *value = word[2] ? word : argv[++*i];
        if (value != NULL && (word[2] || value[0] != '-'))
            return true;
        --*i;
        return false;
    }
    if (word[2] != '\0')
        return false;
    switch (letter) {
    case 'i':
        o->interactive = o->version = true;
        return true;
    case 'v':
        o->version = true;
        return true;
    case 'E':
        o->ignore_env = true;
        return true;
    case 'W': /* acts in its turn among -e and -l: see run.c */
        return true;
    default:
        return false;
    }
}

cli_options cli_options_read(char **argv) {
    cli_options o = {0};
    int i = argv[0] ? 1 : 0;
    for (; argv[i] != NULL && argv[i][0] == '-'; i++) {
        if (argv[i][1] == '\0') /* stdin is the script */
            break;
        if (argv[i][1] == '-') {
            o.fsck = strcmp(argv[i], "--fsck") == 0 && argv[i + 1] != NULL;
            o.bad = argv[i][2] != '\0' && !o.fsck;
            i += !o.bad;
            break;
        }
        if (!read_option(argv, &i, &o)) {
            o.bad = true;
            break;
        }
    }
    o.script = i;
    return o;
}

char *cli_options_value(char **argv, int *i) {
    char *rest = argv[*i] + 2;
    return *rest ? rest : argv[++*i];
}

void cli_options_usage(const cli *c, const char *option) {
    bool value = option[1] == 'e' || option[1] == 'l' ||
                 strcmp(option, "--fsck") == 0;
    fprintf(stderr, "%s: ", c->program);
    fprintf(stderr,
            value ? "'%s' needs argument\n" : "unrecognized option '%s'\n",
            option);
    fprintf(stderr,
            "usage: %s [options] [script [args]]\n"
            "Available options are:\n"
            "  -e stat   execute string 'stat'\n"
            "  -i        enter interactive mode after executing 'script'\n"
            "  -l mod    require library 'mod' into global 'mod'\n"
            "  -l g=mod  require library 'mod' into global 'g'\n"
            "  -v        show version information\n"
            "  -E        ignore environment variables\n"
            "  -W        turn warnings on\n"
            "  --fsck p  check the shared memory of the program that "
            "process 'p' is of\n"
            "  --        stop handling options\n"
            "  -         stop handling options and execute stdin\n",
            c->program);
}
