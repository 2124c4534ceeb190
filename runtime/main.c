/* main.c: main() of every compiled program, which defines moe_program; alone in its file, so that a test can have a
 * main() of its own. */
#include "host.h"
#include "ranks.h"

int main(int argc, char **argv) {
    Error e = {0};
    if (ranks_begin(argc, argv, &e)) return ranks_end(cli_main(&moe_program, argc, argv));
    return e.text[0] ? ranks_end(command_error(&e)) : EXIT_user;
}
