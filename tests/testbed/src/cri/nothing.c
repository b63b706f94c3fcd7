/* A CNI plugin that does nothing (CNI specification 1.0.0, section 4), in next to no time. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    const char *command = getenv("CNI_COMMAND"), *netns = getenv("CNI_NETNS");
    char config[4096];

    while (read(0, config, sizeof config) > 0) {} /* whoever writes it shall not get SIGPIPE */
    if (command && !strcmp(command, "ADD"))
        printf("{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"%s\"}],"
               "\"ips\":[{\"address\":\"10.99.0.2/24\",\"interface\":0}]}\n", netns ? netns : "");
    if (command && !strcmp(command, "VERSION"))
        puts("{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}");
    return 0;
}
