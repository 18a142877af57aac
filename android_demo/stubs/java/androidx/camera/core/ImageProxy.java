// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core;

import androidx.annotation.NonNull;
import java.nio.ByteBuffer;

public interface ImageProxy extends AutoCloseable {
    @Override
    void close();

    int getWidth();

    int getHeight();

    @NonNull
    ImageInfo getImageInfo();

    @NonNull
    PlaneProxy[] getPlanes();

    interface PlaneProxy {
        int getRowStride();

        int getPixelStride();

        @NonNull
        ByteBuffer getBuffer();
    }
}
