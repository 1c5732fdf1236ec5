// Command images writes busybox.tar and httpd.tar, the images of the tests and the tutorial, made from Debian's static
// busybox. "docker load" and "minictl load" take them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/minictl/minictl/testing/images/bake"
)

func main() {
	dir := flag.String("o", "bin/images", "folder to write the images to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) error {
	bin, err := bake.FindBusybox(ctx, filepath.Join(dir, "busybox-static"))
	if err != nil {
		return err
	}
	busybox, err := bake.Busybox(ctx, bin)
	if err != nil {
		return err
	}
	httpd, err := bake.HTTPD(busybox)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(save(filepath.Join(dir, "busybox.tar"), busybox), save(filepath.Join(dir, "httpd.tar"), httpd))
}

// save writes beside the target and renames, so that nobody loads half an image.
func save(file string, img bake.Image) error {
	f, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	err = errors.Join(bake.Save(f, img), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save %s: %w", file, err), os.Remove(f.Name()))
	}
	fmt.Println(file)
	return nil
}
