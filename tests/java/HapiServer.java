import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HapiContext;
import ca.uhn.hl7v2.app.HL7Service;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.parser.GenericModelClassFactory;
import ca.uhn.hl7v2.protocol.ReceivingApplication;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** HAPI's server on the port that is given: it acknowledges every message and keeps none, but writes each into the file that is given. */
public final class HapiServer {
    public static void main(String[] arguments) throws Exception {
        HapiContext context = new DefaultHapiContext();
        context.setValidationContext(ValidationContextFactory.noValidation());
        context.setModelClassFactory(new GenericModelClassFactory());
        OutputStream file = arguments.length > 1 ? new FileOutputStream(arguments[1]) : OutputStream.nullOutputStream();
        HL7Service server = context.newServer(Integer.parseInt(arguments[0]), false);
        server.registerApplication(new ReceivingApplication<Message>() {
            @Override
            public Message processMessage(Message message, Map<String, Object> about) {
                try {
                    synchronized (file) {
                        file.write((message.encode() + "\u001c").getBytes(StandardCharsets.UTF_8));
                        file.flush();
                    }
                    return message.generateACK();
                } catch (Exception error) {
                    throw new IllegalStateException(error);
                }
            }

            @Override
            public boolean canProcess(Message message) {
                return true;
            }
        });
        server.startAndWait();
        System.out.println("ready");
        Thread.currentThread().join();
    }
}
