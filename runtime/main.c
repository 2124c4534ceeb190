/* main.c: main() of every compiled program, which defines moe_program; alone in its file, so that a test can have a
 * main() of its own. */
#include "host.h"

int main(int argc, char **argv) {
    return cli_main(&moe_program, argc, argv);
}
