module volgate/delayline

go 1.21
