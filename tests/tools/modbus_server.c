/* A Modbus server on libmodbus: the peer of the driver's tests and benchmarks.
 *
 *   modbus_server tcp PORT             listens on 127.0.0.1 (0: any free port)
 *   modbus_server rtu DEVICE BAUD UNIT serves one unit on a serial port
 *
 * Prints "ready PORT" when it serves, and ends at the end of its standard input, from which it takes lines
 *   set TABLE ADDRESS VALUE            no answer; TABLE is one of c, d, h, i
 *   get TABLE ADDRESS                  answers with the value
 * Registers 0 to 9999 of each table exist, all 0. A request that begins at address 9000+N gets exception N.
 * Input registers from 5000 to 8999 grow by one each time they are read, those from 2000 to 4999 each time
 * the holding register of the same address is written.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

enum { SIZE = 10000, EXCEPTIONS = 9000, COUNTING = 5000, COUNTED = 2000 };

static void command(modbus_mapping_t *map, char *line) {
    char verb[4], table;
    int address, value = 0;
    if (sscanf(line, "%3s %c %d %d", verb, &table, &address, &value) < 3 || address < 0 || address >= SIZE)
        exit(2);
    uint8_t *bits = table == 'c' ? map->tab_bits : table == 'd' ? map->tab_input_bits : NULL;
    uint16_t *words = table == 'h' ? map->tab_registers : map->tab_input_registers;
    if (strcmp(verb, "get") == 0) {
        printf("%d\n", bits ? bits[address] : words[address]);
        fflush(stdout);
    } else if (bits) {
        bits[address] = value != 0;
    } else {
        words[address] = value;
    }
}

/* Counts what a request writes to holding registers; `pdu` begins with its function code. */
static void count_writes(modbus_mapping_t *map, const uint8_t *pdu) {
    int at = pdu[0] == MODBUS_FC_WRITE_AND_READ_REGISTERS ? 5 : 1, count = 0;
    if (pdu[0] == MODBUS_FC_WRITE_SINGLE_REGISTER || pdu[0] == MODBUS_FC_MASK_WRITE_REGISTER)
        count = 1;
    else if (pdu[0] == MODBUS_FC_WRITE_MULTIPLE_REGISTERS || pdu[0] == MODBUS_FC_WRITE_AND_READ_REGISTERS)
        count = pdu[at + 2] << 8 | pdu[at + 3];
    int address = pdu[at] << 8 | pdu[at + 1];
    for (int i = address; i < address + count; i++)
        if (i >= COUNTED && i < COUNTING)
            map->tab_input_registers[i]++;
}

/* Serves one request that waits on the connection; -1 when the connection is over. */
static int serve(modbus_t *ctx, modbus_mapping_t *map) {
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    int length = modbus_receive(ctx, query);
    if (length <= 0)
        return length;
    int header = modbus_get_header_length(ctx);
    int address = query[header + 1] << 8 | query[header + 2];
    int exception = address - EXCEPTIONS;
    if (exception > 0 && exception < MODBUS_EXCEPTION_MAX)
        return modbus_reply_exception(ctx, query, exception);
    int count = query[header + 3] << 8 | query[header + 4];
    if (query[header] == MODBUS_FC_READ_INPUT_REGISTERS && address >= COUNTING && address + count <= EXCEPTIONS)
        for (int i = 0; i < count; i++)
            map->tab_input_registers[address + i]++;
    count_writes(map, query + header);
    return modbus_reply(ctx, query, length, map);
}

int main(int argc, char **argv) {
    int tcp = argc == 3 && strcmp(argv[1], "tcp") == 0;
    if (!tcp && !(argc == 5 && strcmp(argv[1], "rtu") == 0))
        return 2;
    modbus_t *ctx =
        tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2])) : modbus_new_rtu(argv[2], atoi(argv[3]), 'N', 8, 1);
    modbus_mapping_t *map = modbus_mapping_new(SIZE, SIZE, SIZE, SIZE);
    int listener = -1, port = 0;
    if (tcp) {
        struct sockaddr_in name;
        socklen_t size = sizeof name;
        if ((listener = modbus_tcp_listen(ctx, 8)) < 0 || getsockname(listener, (struct sockaddr *)&name, &size) < 0)
            return perror("listen"), 1;
        port = ntohs(name.sin_port);
    } else if (modbus_set_slave(ctx, atoi(argv[4])) < 0 || modbus_connect(ctx) < 0) {
        return perror(argv[2]), 1;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* or select would not see lines that wait in the buffer */
    printf("ready %d\n", port);
    fflush(stdout);

    fd_set all;
    FD_ZERO(&all);
    FD_SET(STDIN_FILENO, &all);
    int line = tcp ? listener : modbus_get_socket(ctx);
    FD_SET(line, &all);
    for (;;) {
        fd_set ready = all;
        if (select(FD_SETSIZE, &ready, NULL, NULL, NULL) < 0)
            return perror("select"), 1;
        for (int fd = 0; fd < FD_SETSIZE; fd++) {
            char text[100];
            if (!FD_ISSET(fd, &ready))
                continue;
            if (fd == STDIN_FILENO) {
                if (!fgets(text, sizeof text, stdin))
                    return 0;
                command(map, text);
            } else if (fd == listener) {
                int client = modbus_tcp_accept(ctx, &listener);
                if (client >= 0)
                    FD_SET(client, &all);
            } else if (!tcp) {
                serve(ctx, map);
            } else if (modbus_set_socket(ctx, fd), serve(ctx, map) < 0) {
                FD_CLR(fd, &all);
                close(fd);
            }
        }
    }
}
